#ifndef TH_SCHEMA_QUANTITY_H
#define TH_SCHEMA_QUANTITY_H
/* Kubernetes quantities ("500m", "1.5Gi", "2e3"), as k8s.io/apimachinery resource.Quantity: kept
 * exactly as a 128-bit count of nano units with a suffix family. */
#include "base/err.h"
#include <stdint.h>
enum th_qformat { TH_Q_DECIMAL_SI, TH_Q_BINARY_SI, TH_Q_DECIMAL_EXP };
struct th_quantity {
    __int128 nano;
    enum th_qformat format;
};
/* TH_R_BAD_REQUEST with upstream's words. Finer than a nano is rounded away from zero; magnitudes
 * above 1.7e29 (upstream: unbounded) count as a bad number. */
int th_quantity_parse(const char *s, struct th_quantity *ret, struct th_err *err) TH_MUST_USE;
/* Canonical text; buf has at least TH_QUANTITY_LEN bytes. */
#define TH_QUANTITY_LEN 64
char *th_quantity_format(struct th_quantity q, char *buf);
/* What an API server gives back for this text: the text itself when upstream takes it for
 * canonical ("1.500" is, "1000m" is not), else the canonical form. */
int th_quantity_normalize(const char *s, char *buf, struct th_err *err) TH_MUST_USE;
int64_t th_quantity_milli(struct th_quantity q); /* rounded up, saturating */
int64_t th_quantity_value(struct th_quantity q); /* rounded up, saturating */
struct th_quantity th_quantity_from_value(int64_t v, enum th_qformat f);
struct th_quantity th_quantity_from_milli(int64_t v, enum th_qformat f);
int th_quantity_cmp(struct th_quantity a, struct th_quantity b); /* <0, 0, >0 */
/* Saturating. The result has a's format, or b's when a is zero. */
struct th_quantity th_quantity_add(struct th_quantity a, struct th_quantity b);
struct th_quantity th_quantity_sub(struct th_quantity a, struct th_quantity b);
#endif
