#ifndef TH_SCHEMA_VALIDATE_H
#define TH_SCHEMA_VALIDATE_H
/* Validation causes with upstream's exact words (k8s.io/apimachinery validation/field), for the
 * hand-written rules of controlplane/resources. Each appends one cause to err unless the very same
 * one is there already; none sets err's reason or message: th_invalid_finish does, once.
 *
 *   th_invalid_int(err, "spec.replicas", -1, "must be greater than or equal to 0");
 *   cause FieldValueInvalid, "Invalid value: -1: must be greater than or equal to 0"
 *
 * Paths are printf formats of their own where they vary: build them with th_field_path. `detail`
 * may be "". */
#include "base/json/json.h"

/* "Required value" or "Required value: detail". */
void th_invalid_required(struct th_err *err, const char *path, const char *detail);
/* "Invalid value: <bad>: detail"; strings quoted as Go does, everything else as JSON. */
void th_invalid_value(struct th_err *err, const char *path, const struct th_json *bad,
                      const char *detail);
void th_invalid_str(struct th_err *err, const char *path, const char *bad, const char *detail);
void th_invalid_int(struct th_err *err, const char *path, int64_t bad, const char *detail);
/* "Unsupported value: \"x\": supported values: \"A\", \"B\""; values is NULL-terminated, in the
 * order that is shown. */
void th_invalid_not_supported(struct th_err *err, const char *path, const char *bad,
                              const char *const *values);
void th_invalid_duplicate(struct th_err *err, const char *path, const struct th_json *bad);
void th_invalid_not_found(struct th_err *err, const char *path, const struct th_json *bad);
void th_invalid_forbidden(struct th_err *err, const char *path, const char *detail);
/* "Too long: may not be more than 63 bytes". */
void th_invalid_too_long(struct th_err *err, const char *path, int max);
/* "Too many: 5: must have at most 4 items". */
void th_invalid_too_many(struct th_err *err, const char *path, size_t actual, size_t max);
/* "Internal error: detail". */
void th_invalid_internal(struct th_err *err, const char *path, const char *detail);

/* When err has causes: makes it TH_R_INVALID with 'Deployment.apps "x" is invalid: …' (one cause, or
 * several as "[a, b]", repeated texts once) and group, kind and name set, and returns
 * -TH_R_INVALID; otherwise 0. group "" for core, name may be NULL. */
int th_invalid_finish(struct th_err *err, const char *group, const char *kind, const char *name);

/* "spec.containers[0].image" from a format; the caller frees. */
char *th_field_path(const char *fmt, ...) TH_PRINTF(1, 2);
/* parent "" gives member alone; the caller frees. */
char *th_field_child(const char *parent, const char *member);
char *th_field_index(const char *parent, size_t i);
char *th_field_key(const char *parent, const char *key); /* "metadata.labels[a/b]" */
#endif
