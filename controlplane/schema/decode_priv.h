#ifndef TH_SCHEMA_DECODE_PRIV_H
#define TH_SCHEMA_DECODE_PRIV_H
/* Between decode.c and decode_words.c. */
#include "controlplane/schema/schema_priv.h"

/* Where decoding is: a chain on the stack, innermost first. */
struct th_decode_at {
    const struct th_decode_at *up;
    const char *key;              /* member or map key; NULL for an index */
    size_t index;
    const struct th_type *owner;  /* the struct, for a struct's member */
    const struct th_field *field;
};

/* "spec.containers[0].image", as strict errors say it. */
void th_decode_strict_path(const struct th_decode_at *at, struct th_buf *b);
/* "spec.template.spec.volumes.VolumeSource.hostPath", as type errors say it. */
void th_decode_go_path(const struct th_decode_at *at, struct th_buf *b);
/* Go's name of one value of the field's type ("int32", "v1.Container"), and of the whole field. */
void th_decode_go_element(const struct th_field *f, struct th_buf *b);
void th_decode_go_whole(const struct th_field *f, struct th_buf *b);
/* v is not of go_type. at NULL: not within a struct. with_digits: a number is shown. */
void th_decode_json_error(const struct th_decode_at *at, const struct th_json *v, bool with_digits,
                          const char *go_type, struct th_buf *b);
/* The same of a value in a map; f NULL: a type with a JSON decoder of its own. */
void th_decode_map_error(const struct th_field *f, const struct th_json *v, bool with_digits,
                         const char *go_type, struct th_buf *b);
#endif
