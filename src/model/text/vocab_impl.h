/*
 * vocab_impl: what the kinds of vocabulary share. Only vocab*.c, pretok.c and its test include
 * it.
 *
 * A *piece* is the bytes of a token as the file stores them; `text` is what it stands for.
 */
#ifndef PDD_MODEL_TEXT_VOCAB_IMPL_H
#define PDD_MODEL_TEXT_VOCAB_IMPL_H

#include "model/gguf.h"
#include "model/text/vocab.h"

enum token_kind { /* tokenizer.ggml.token_type */
                  TOKEN_NORMAL = 1,
                  TOKEN_UNKNOWN = 2,
                  TOKEN_CONTROL = 3,
                  TOKEN_USER = 4,
                  TOKEN_UNUSED = 5,
                  TOKEN_BYTE = 6
};

enum vocab_kind { VOCAB_BYTES, VOCAB_SPM, VOCAB_BPE };

enum { VOCAB_SIZE_MAX = 1 << 21, VOCAB_PIECE_MAX = 4096, MENDED_TEXT_MAX = 256 };

struct token {
    const char *piece;
    uint32_t len;
    float score; /* SentencePiece: higher merges first; BPE: rank of the merge that makes it */
    uint8_t kind;
};

/* Hash table from bytes to an index; open addressing, a power of two, at most half full. */
struct piece_map {
    uint32_t *slots; /* index + 1, 0: empty */
    uint32_t mask;
};

struct pretok;

struct vocab {
    enum vocab_kind kind;
    uint32_t size;
    struct token *tokens;
    char *memory; /* pieces, copied so that the file may be closed */
    struct piece_map by_piece;
    int32_t bos, eos, unknown;
    int32_t ends[16]; /* tokens that end an answer */
    uint32_t n_ends;
    char mended[MENDED_TEXT_MAX];
    bool add_bos, add_eos, space_prefix;
    bool strips;             /* white space after most control tokens is part of them */
    int32_t byte_token[256]; /* SentencePiece byte fallback and BPE bytes; -1: none */
    /* BPE */
    struct merge {
        int32_t left, right, result;
    } * merges;             /* in order of rank */
    uint32_t merges_passed; /* malformed: no pair in the file's list, so that ranks stay */
    uint32_t *merge_slots;  /* hash of (left, right) -> rank + 1 */
    uint32_t merge_mask;
    struct pretok *pretok;
    /* control and user-defined tokens, sorted by their bytes; from[b]: the first that begins with b
     */
    const struct token **specials;
    uint32_t special_from[257];
};

/* Make the token of that piece, if there is one, a control token that ends an answer, whatever the
 * file calls it. An ordinary word stays what it is. Call it before any other use of `v`. */
int vocab_add_end(struct vocab *v, const char *piece, size_t n, struct err *e);
/* Tokens that templates write to part messages become control tokens, whatever the file calls
 * them; those that a template has; one that the file names as BOS or as an end. */
void specials_promote(struct vocab *v);
bool specials_promote_used(struct vocab *v, const char *chat_template, size_t n);
void specials_promote_named(struct vocab *v, int32_t id);
/* Gather the tokens that are found in a text before any merging; vocab_next_special finds them.
 * What was gathered before goes. */
int specials_open(struct vocab *v);

int piece_map_init(struct piece_map *m, uint32_t count);
void piece_map_release(struct piece_map *m);
/* Add index i, whose piece is tokens[i]; an equal piece that is there stays. */
void piece_map_add(struct piece_map *m, const struct token *tokens, uint32_t i);
int32_t piece_map_find(const struct piece_map *m, const struct token *tokens, const char *piece,
                       size_t n);

/* The encoders of plain text (no control tokens inside). `start`: the text begins the whole string.
 */
int spm_encode(const struct vocab *v, const char *text, size_t n, bool start,
               struct token_list *out, struct err *e);
int bpe_open(struct vocab *v, const struct gguf *g, struct err *e);
void bpe_close(struct vocab *v);
int bpe_encode(const struct vocab *v, const char *text, size_t n, struct token_list *out,
               struct err *e);

/* Pre-tokenisers: split a text into words that merges never cross. */
int pretok_open(struct gguf_str name, const char *file, struct pretok **ret_pretok, struct err *e);
void pretok_close(struct pretok *p);
/* A word that is a token as a whole is taken as it is, even where merges would not lead to it. */
bool pretok_whole_words(const struct pretok *p);
bool pretok_adds_bos(const struct pretok *p); /* where the file has no flag for it */
typedef int pretok_fn(void *arg, const char *word, size_t n);
/* Call fn for each word of valid UTF-8 text; stops at the first non-zero and returns it. */
int pretok_split(const struct pretok *p, const char *text, size_t n, pretok_fn *fn, void *arg,
                 struct err *e);

/* GPT-2's printable stand-ins for bytes. */
uint32_t byte_to_symbol(uint8_t b);
int symbol_to_byte(uint32_t code); /* or -1 */

#endif
