/*
 * vocab: text to token ids and back.
 *
 * Kinds: SentencePiece (`tokenizer.ggml.model` = llama, with byte fallback), byte-level BPE (gpt2;
 * pre-tokenisers by `tokenizer.ggml.pre`), and a built-in one of bytes for the fake engine.
 * Immutable after opening, so any thread may use it; encoding allocates only the caller's list.
 */
#ifndef PDD_MODEL_TEXT_VOCAB_H
#define PDD_MODEL_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct gguf;
struct vocab;

/* A growable list of token ids with a maximum. */
struct token_list {
    int32_t *ids;
    uint32_t len, cap, max;
};
void token_list_init(struct token_list *t, uint32_t max);
void token_list_release(struct token_list *t);
int token_list_push(struct token_list *t, int32_t id); /* ERR_LIMIT, ERR_NO_MEMORY */
int token_list_append(struct token_list *t, const int32_t *ids, uint32_t n);

int vocab_open(const struct gguf *g, struct vocab **ret_vocab, struct err *e);
/* 256 byte tokens (id = byte), then 256 <|im_start|>, 257 <|im_end|> (end of turn), 258
 * <|endoftext|>. */
int vocab_open_bytes(struct vocab **ret_vocab, struct err *e);
void vocab_close(struct vocab *v);

uint32_t vocab_size(const struct vocab *v);
int32_t vocab_bos(const struct vocab *v); /* -1: none */
int32_t vocab_eos(const struct vocab *v); /* -1: none */
bool vocab_adds_bos(const struct vocab *v);
bool vocab_is_end(const struct vocab *v, int32_t id); /* ends an answer: eos, eot, end of text */
const int32_t *vocab_ends(const struct vocab *v, uint32_t *ret_n); /* all of those */
bool vocab_is_control(const struct vocab *v, int32_t id);          /* not part of the shown text */
int32_t vocab_find(const struct vocab *v, const char *piece, size_t n); /* exact piece, or -1 */

/* The piece of a token as the file spells it, not terminated. */
const char *vocab_spelling(const struct vocab *v, int32_t id, size_t *ret_len);

/* Files may call the tokens that turns are made of ordinary text, and are mended when they are
 * opened: tokens that look like control tokens ("<|...|>", ...) are control tokens if the file's
 * chat template has them, or if their names are those of tokens that begin and end turns.
 * vocab_mend does it for another template, before any other use of `v`. vocab_mended lists those
 * that the file calls ordinary, with commas; "": none. */
int vocab_mend(struct vocab *v, const char *chat_template, size_t n, struct err *e);
const char *vocab_mended(const struct vocab *v);
/* Merges of the file that do not join two tokens to a third: they are passed over. */
uint32_t vocab_merges_passed(const struct vocab *v);

/* The token of exactly these bytes, which may be a part of a character; -1: none. */
int32_t vocab_of_bytes(const struct vocab *v, const char *bytes, size_t n);

/* The first control (if `control`) or user-defined token written in text[n]: its id, place and
 * length; -1 when there is none. */
int32_t vocab_next_special(const struct vocab *v, const char *text, size_t n, bool control,
                           size_t *ret_at, size_t *ret_len);

/* Bytes at the start of text[n] that belong to the preceding token `before`: white space after some
 * control tokens of some models (Phi-3); else 0. */
size_t vocab_swallows(const struct vocab *v, int32_t before, const char *text, size_t n);

enum {
    VOCAB_ADD_BOS = 1, /* put the BOS (and EOS) the model's flags ask for; a BOS that the text
                          begins with is that one */
    VOCAB_SPECIAL = 2  /* recognise control tokens written in the text; never for a user's text */
};
/* Append the tokens of text[n] (UTF-8; invalid bytes become byte tokens or U+FFFD as the kind
 * does). */
int vocab_encode(const struct vocab *v, const char *text, size_t n, unsigned flags,
                 struct token_list *out, struct err *e);

/* Append the raw bytes of one token; they may be part of a UTF-8 character. Control tokens give
 * nothing unless `show_control`. ERR_BAD_INPUT for an id outside the vocabulary. */
int vocab_piece(const struct vocab *v, int32_t id, bool show_control, struct buf *out);

/* Streaming detokenisation: emits whole UTF-8 characters only. Bytes that can no longer become a
 * character are emitted as U+FFFD. `first` strips the leading space of SentencePiece. */
struct detok {
    uint8_t pending[4];
    uint8_t pending_len;
    bool first;
};
void detok_init(struct detok *d, bool start_of_text);
int detok_push(struct detok *d, const struct vocab *v, int32_t id, struct buf *out);
int detok_finish(struct detok *d, struct buf *out); /* what is still pending, as U+FFFD */

/* Append the whole text of tokens[n]. Control tokens are written out, so that the text can be read
 * back. ERR_BAD_INPUT names an id outside the vocabulary. */
int vocab_write(const struct vocab *v, const int32_t *tokens, uint32_t n, struct buf *out,
                struct err *e);

#endif
