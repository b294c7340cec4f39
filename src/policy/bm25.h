/*
 * bm25: which units of a prompt speak of the words of a question. Pure: texts and token ends are
 * arguments, integer and IEEE arithmetic only, so every machine gives the same scores.
 *
 * A *word* is a run of letters and digits, by its first BM25_PREFIX characters in lower case (ASCII
 * only): "invented" and "invention" are one word. An ideograph, kana or hangul syllable is a word
 * by itself. A *unit* is `unit` tokens in a row, the last one may be shorter.
 *
 * BM25 (Robertson, Walker et al., TREC-3) counts a word inside a passage. A unit of 16 tokens is
 * shorter than a sentence, and the answer stands beside the question's words, not among them. So a
 * unit counts every occurrence nearby, less with distance: with c the token in the middle of the
 * unit and p the token where the word begins,
 *
 *     tf = sum over occurrences of max(0, 1 - |c - p| / BM25_REACH)
 *     score = known * sum over distinct words of the question of idf * tf * (K1 + 1) / (tf + K1)
 *     idf = log2((units + 1) / (units with tf > 0, + 1/2))
 *     known = sum of idf of the words that occur in the text / sum of idf of all words
 *
 * A question of which the text knows little (a summary, a count) scores little anywhere; the order
 * of units does not depend on that. Every unit sees equally many tokens, so there is no correction
 * for length. Measured on 576 questions of SQuAD dev in 4,000 tokens of their articles, units of
 * 16, share of answers in what is kept at 50, 30, 20, 10 %: 99, 99, 97, 92 %. Counting inside the
 * unit alone (of 32): 91, 85, 80, 73 %; a window of equal weights (144 tokens): 99, 98, 96, 91 %;
 * token ids for words: 99, 98, 97, 93 %.
 *
 * Time: bytes of the text, then tokens + units * words of the question. Memory: the caller's, but
 * for bm25_score_text.
 */
#ifndef PDD_POLICY_BM25_H
#define PDD_POLICY_BM25_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum {
    BM25_PREFIX = 5,     /* characters of a word that count */
    BM25_REACH = 96,     /* tokens */
    BM25_QUESTION = 64,  /* words of a question that is the end of a longer text, */
    BM25_LIST = 256,     /* of a list of questions, and */
    BM25_LIST_LINE = 32, /* of each of its lines */
    BM25_WORDS_MAX = 128 /* distinct words of a question; later ones do not count */
};
#define BM25_K1 1.2f

struct bm25_word {
    uint32_t word; /* hash */
    uint32_t at;   /* token that holds its first byte */
};

/* The words of text[len] in order, at most `cap` of them stored; returns how many there are. ends
 * [n]: where each token ends in the text, in bytes, not falling; bytes past the last end belong to
 * the last token. cap 0 (and ret_words NULL) counts. A text whose tokens do not matter: n 0, all
 * words are at 0. Invalid UTF-8 separates words. */
uint32_t bm25_words(const char *text, size_t len, const uint32_t *ends, uint32_t n,
                    struct bm25_word *ret_words, uint32_t cap);

/* Where in a user's message the question begins: its last paragraph with a word (an empty line
 * separates them). Of one with more than BM25_QUESTION words the last line with a word, and those
 * in front of it that are as short as the items of a list (BM25_LIST_LINE words), up to BM25_LIST
 * words; of a longer line the last BM25_QUESTION words. */
size_t bm25_question(const char *text, size_t len);

/* Scores of ceil(n_tokens / unit) units, each >= 0; all 0 where no word of the question occurs.
 * Words with rising `at` < n_tokens, without those of the question itself: it speaks of itself
 * best; unit >= 1. */
void bm25_score(const struct bm25_word *words, uint32_t n_words, uint32_t n_tokens, uint32_t unit,
                const struct bm25_word *question, uint32_t n_question, float *ret_scores);

/* The same with the words of text[len], whose tokens are as in bm25_words, and of a question, and
 * with units of one token: ret_scores is [n]. ERR_NO_MEMORY. */
int bm25_score_text(const char *text, size_t len, const uint32_t *ends, uint32_t n,
                    const char *question, size_t question_len, float *ret_scores, struct err *e);

#endif
