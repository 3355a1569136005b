#ifndef TH_IMAGES_BUILDER_PRIV_H
#define TH_IMAGES_BUILDER_PRIV_H
/* The inside of the builder: builder.c (stages), build_inst.c (instructions), build_run.c (RUN),
 * build_copy.c (COPY and ADD), build_layer.c (roots and layers). */
#include "base/json/json.h"
#include "images/builder.h"
#include "images/dockerfile.h"
#include "images/dockerignore.h"
#include "images/layer.h"

struct blayer {
    char diff_id[TH_DIGEST_LEN], digest[TH_DIGEST_LEN];
    char media_type[80];
    int64_t size;
};
struct bvars { /* name=value, later wins */
    struct th_strv kv;
};
const char *bvars_get(const struct bvars *v, const char *name, size_t n);
void bvars_set(struct bvars *v, const char *name, const char *value);

struct bstage {
    const struct th_df_stage *df;
    char *base;          /* expanded */
    int base_stage;      /* index, or -1 */
    char *label;         /* for events */
    bool needed, done, cmd_set;
    struct th_json *doc; /* the image config document being built */
    struct blayer *layers;
    size_t n_layers;
    struct bvars args;
};
struct build {
    struct th_images *s;
    struct th_images_session *ss;
    const struct th_build_opts *o;
    const char *file;      /* Dockerfile's name in messages */
    const char *context;   /* folder */
    struct th_dockerfile *df;
    struct th_ignore *ignore;
    struct bstage *stages;
    struct bvars globals;  /* pre-FROM ARGs and platform words */
    struct th_strv used_args;
    const char *arch;
    int step, total, cached;
    unsigned seq;
    /* the step at work */
    struct bstage *st;
    const struct th_df_inst *in;
    const char *text;
    int64_t t0;
    bool was_cached;
};

/* builder.c */
int b_fault(struct build *b, enum th_reason reason, struct th_err *err, const char *fmt, ...)
    TH_PRINTF(4, 5);
void b_event(struct build *b, enum th_build_event_kind kind, const char *text);
int b_base_image(struct build *b, const char *ref, struct th_image **ret, struct th_err *err);
int b_find_stage(const struct build *b, const char *name, int before);
bool b_canceled(const struct build *b);
/* build_inst.c */
int b_instruction(struct build *b, struct bstage *st, const struct th_df_inst *in,
                  struct th_err *err);
int b_expand(struct build *b, struct bstage *st, const char *word, char **ret, struct th_err *err);
int b_expand_words(struct build *b, struct bstage *st, const char *word, struct th_strv *out,
                   struct th_err *err);
void b_history(struct bstage *st, const char *created_by, bool empty);
struct th_json *b_config(struct bstage *st);
/* "/app" joined with a path that may be relative; cleaned, absolute. Caller frees. */
char *b_abs(struct bstage *st, const char *path);
/* build_run.c, build_copy.c */
int b_run(struct build *b, struct bstage *st, const struct th_df_inst *in, struct th_err *err);
int b_copy(struct build *b, struct bstage *st, const struct th_df_inst *in, struct th_err *err);
/* build_layer.c */
struct broot {
    char *dir;    /* holds upper, work, root */
    char *upper, *root;
    bool mounted;
};
/* A writable root of the stage as it stands; upper false: read-only. */
int b_root_open(struct build *b, const struct blayer *layers, size_t n, bool writable,
                struct broot *ret, struct th_err *err);
void b_root_close(struct broot *r);
/* Unmounts, turns the upper into a layer of the stage and enters it in the cache under key. */
int b_commit(struct build *b, struct bstage *st, struct broot *r, const char *key,
             struct th_err *err);
/* Key of a step on top of the stage's layers: begin, add strings, end. */
struct th_sha256 *b_key_begin(const struct bstage *st, const char *kind);
void b_key_add(struct th_sha256 *h, const char *name, const char *value);
void b_key_end(struct th_sha256 *h, char key[TH_SHA256_HEX_LEN]);
/* true: the step's layer was in the cache and has been added to the stage. */
bool b_cache_hit(struct build *b, struct bstage *st, const char *key, struct th_err *err);
/* A path inside a root, links resolved there; the folder or file it really is. Caller frees. */
int b_resolve_in(const char *root, const char *path, char **ret, struct th_err *err);
int b_open_in(const char *root, const char *path, int flags);
#endif
