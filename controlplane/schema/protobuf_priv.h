#ifndef TH_SCHEMA_PROTOBUF_PRIV_H
#define TH_SCHEMA_PROTOBUF_PRIV_H
/* Shared by protobuf.c (reading) and protobuf_encode.c (writing). */
#include "controlplane/schema/schema.h"
#define TH_PB_MAGIC "k8s\0"
#define TH_PB_MAGIC_LEN 4
enum th_pb_wire { TH_PB_VARINT = 0, TH_PB_FIXED64 = 1, TH_PB_BYTES = 2, TH_PB_FIXED32 = 5 };
int th_pb_decode_at(const void *p, size_t n, const struct th_kind *k,
                    const struct th_kind **ret_kind, struct th_json **ret, int depth,
                    struct th_err *err) TH_MUST_USE;
#endif
