#ifndef TH_IMAGES_DOCKERFILE_H
#define TH_IMAGES_DOCKERFILE_H
/* The Dockerfile language. Parsing gives instructions; words are expanded while building, when
 * the values are known. */
#include "base/buf.h"
#include "base/err.h"

enum th_df_op {
#define TH_DF_OP(id, word) TH_DF_##id,
#include "images/dockerfile.def"
#undef TH_DF_OP
    TH_DF_COUNT_
};
const char *th_df_op_name(enum th_df_op op); /* "COPY" */

struct th_df_heredoc {
    char *name; /* the word after << */
    char *text;
    bool expand; /* false when the word was quoted */
    bool chomp;  /* <<- */
};
struct th_df_flag {
    char *name;  /* "from" */
    char *value; /* "" for a bare flag */
};
struct th_df_inst {
    enum th_df_op op;
    int line;          /* of its first line */
    char *original;    /* for history and progress: joined lines */
    struct th_df_flag *flags;
    size_t n_flags;
    bool json;         /* exec form: args are the elements */
    struct th_strv args; /* words (ENV, LABEL, ARG: "k=v"); shell form: one string */
    struct th_df_heredoc *heredocs;
    size_t n_heredocs;
    struct th_df_inst *onbuild; /* of ONBUILD: the instruction in it; of HEALTHCHECK: CMD */
};
struct th_df_stage {
    char *base;     /* unexpanded name after FROM */
    char *platform; /* unexpanded, or NULL */
    char *name;     /* AS, lower case; NULL */
    int line;
    char *original;
    struct th_df_inst **insts;
    size_t n_insts;
};
struct th_dockerfile {
    char escape;   /* '\\' or '`' */
    char *syntax;  /* of the directive, or NULL */
    struct th_df_inst **global_args; /* ARGs before the first FROM */
    size_t n_global_args;
    struct th_df_stage **stages;
    size_t n_stages;
    struct th_strv warnings;
};
/* file is the name used in messages ("Dockerfile"). Faults are -TH_R_DOCKERFILE:
 * "Dockerfile:12: unknown instruction: RNU (did you mean RUN?)". */
int th_dockerfile_parse(const char *file, const char *text, size_t n, struct th_dockerfile **ret,
                        struct th_err *err) TH_MUST_USE;
void th_dockerfile_free(struct th_dockerfile *d);
TH_DEFINE_AUTO(th_dockerfile, th_dockerfile_free)
void th_df_inst_free(struct th_df_inst *i);
/* One instruction from text (ONBUILD triggers of a base image). */
int th_df_parse_inst(const char *file, int line, const char *text, char escape,
                     struct th_df_inst **ret, struct th_err *err) TH_MUST_USE;
const char *th_df_flag(const struct th_df_inst *i, const char *name); /* value or NULL */

/* Looks a variable up; NULL when not set. */
typedef const char *(*th_df_lookup)(void *arg, const char *name, size_t n);
/* Expands $x, ${x}, ${x:-w}, ${x-w}, ${x:+w}, ${x+w}, ${x:?w}, ${x?w}, ${x#p}, ${x##p}, ${x%p},
 * ${x%%p}, ${x/p/w}, ${x//p/w}; quotes are removed as the Dockerfile language does. */
int th_df_expand(const char *word, char escape, th_df_lookup fn, void *arg, struct th_buf *out,
                 struct th_err *err) TH_MUST_USE;
/* Expands and then splits at unquoted blanks into words. */
int th_df_expand_words(const char *word, char escape, th_df_lookup fn, void *arg,
                       struct th_strv *out, struct th_err *err) TH_MUST_USE;
#endif
