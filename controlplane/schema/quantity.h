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
int th_quantity_parse(const char *s, struct th_quantity *ret, struct th_err *err) TH_MUST_USE;
/* Canonical text; buf has at least TH_QUANTITY_LEN bytes. */
#define TH_QUANTITY_LEN 64
char *th_quantity_format(struct th_quantity q, char *buf);
int64_t th_quantity_milli(struct th_quantity q); /* rounded up, saturating */
int64_t th_quantity_value(struct th_quantity q); /* rounded up, saturating */
#endif
