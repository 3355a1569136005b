#ifndef TH_CLI_REGISTRY_LOGIN_H
#define TH_CLI_REGISTRY_LOGIN_H
/* The user's own registry logins, for `thimble image pull`. */
#include "base/buf.h"
#include "cli/cmd.h"

/* What the user knows for this image's registry, as {"auths":{…}}, appended to ret; nothing when
 * there is no login. --username with --password-stdin goes first (reads standard input, once for all
 * images of a call: the caller keeps the text), then Docker's config.json with its credential
 * helpers, then podman's auth.json. A login that is there and cannot be read is an error. */
int th_registry_login(const struct th_cli *cli, const char *ref, struct th_str password,
                      struct th_buf *ret, struct th_err *err) TH_MUST_USE;
/* Standard input to its end without the last newline, when --password-stdin is there. */
int th_registry_password(const struct th_cli *cli, struct th_buf *ret, struct th_err *err) TH_MUST_USE;
#endif
