#ifndef TH_IMAGES_KEYRING_H
#define TH_IMAGES_KEYRING_H
/* Registry credentials, as Docker's config.json and Kubernetes' image pull secrets keep them. One
 * thread at a time. */
#include "base/json/json.h"
#include "images/reference.h"

struct th_keyring;
struct th_keyring *th_keyring_new(void);
void th_keyring_free(struct th_keyring *k);
TH_DEFINE_AUTO(th_keyring, th_keyring_free)

/* Takes over what a config names: {"auths":{…}} of config.json and .dockerconfigjson, or the older
 * .dockercfg, which is the inner object alone. Entries without user and password are passed over;
 * text that is no such config is -TH_R_PARSE. Never says a credential in a message. */
int th_keyring_add_config(struct th_keyring *k, struct th_str text, struct th_err *err) TH_MUST_USE;
/* place: "host[:port][/path]", the host's labels may be globs; a scheme and /v1/ or /v2/ are dropped. */
void th_keyring_add(struct th_keyring *k, const char *place, const char *user, const char *password);

struct th_credential {
    const char *user, *password; /* the keyring's, until it changes */
};
/* The i-th of the credentials whose place covers the image, most specific first; false: no more.
 * Each is to be tried in turn, as the kubelet does. */
bool th_keyring_lookup(const struct th_keyring *k, const struct th_ref *ref, size_t i,
                       struct th_credential *ret);
#endif
