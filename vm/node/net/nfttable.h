#ifndef TH_NODE_NET_NFTTABLE_H
#define TH_NODE_NET_NFTTABLE_H
/* One nftables table as data, and the transactions that make the kernel's copy like it. Not
 * thread-safe. */
#include "base/buf.h"

struct th_nft_table;
/* family and name as nft writes them: "ip", "thimble". */
struct th_nft_table *th_nft_table_new(const char *family, const char *name);
void th_nft_table_free(struct th_nft_table *t);
TH_DEFINE_AUTO(th_nft_table, th_nft_table_free)

/* A chain, made when it is not there; hook is NULL or "type nat hook output priority -100", a
 * string that lives as long as the table. */
void th_nft_chain(struct th_nft_table *t, const char *chain, const char *hook);
bool th_nft_has_chain(const struct th_nft_table *t, const char *chain);
void th_nft_rule(struct th_nft_table *t, const char *chain, const char *fmt, ...) TH_PRINTF(3, 4);
/* A set, or a map when map is true. spec: "type ipv4_addr; flags interval". */
void th_nft_set(struct th_nft_table *t, const char *set, bool map, const char *spec);
bool th_nft_has_set(const struct th_nft_table *t, const char *set);
/* data is NULL for elements of sets. False when there is an element with this key already: that one
 * stays. */
bool th_nft_element(struct th_nft_table *t, const char *set, const char *key, const char *data);
bool th_nft_has_element(const struct th_nft_table *t, const char *set, const char *key);
/* Names of sets that start with prefix, in order. */
void th_nft_set_names(const struct th_nft_table *t, const char *prefix, struct th_strv *ret);

/* The whole table in nft's own form. */
void th_nft_print(const struct th_nft_table *t, struct th_buf *ret);
/* A transaction from one state to the next; from NULL: whatever there is, it is replaced. Nothing is
 * appended when both are the same. Sets that stay keep what the kernel has put into them. */
void th_nft_diff(const struct th_nft_table *from, const struct th_nft_table *to, struct th_buf *ret);
#endif
