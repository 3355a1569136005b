#ifndef TH_CLI_KUBECONFIG_H
#define TH_CLI_KUBECONFIG_H
/* The user's kubeconfig: our cluster, user and context are merged into it and taken out again, with
 * everything else kept. Files are written atomically with mode 0600, under kubectl's own lock file
 * (PATH.lock), through a symbolic link if the path is one. */
#include "base/err.h"

struct th_kube_entry {
    const char *name;   /* of cluster, user and context: "thimble" or the profile's name */
    const char *server; /* "https://127.0.0.1:6443" */
    const char *ca_pem, *cert_pem, *key_pem;
};
/* Where kubectl would write: the first file of $KUBECONFIG, else ~/.kube/config. Caller frees. */
char *th_kubeconfig_path(void);
/* Adds or replaces our entries. With set_current the current context becomes ours and
 * *ret_previous gets the one before ("" when there was none; NULL when it was ours already); the
 * caller frees. A file that is not a kubeconfig is TH_R_KUBECONFIG and stays untouched. */
int th_kubeconfig_merge(const char *path, const struct th_kube_entry *e, bool set_current,
                        char **ret_previous, struct th_err *err) TH_MUST_USE;
/* Takes our entries out. When the current context is ours it becomes `previous` if that context
 * still exists, else it is unset. A missing file is success. */
int th_kubeconfig_remove(const char *path, const char *name, const char *previous,
                         struct th_err *err) TH_MUST_USE;
/* The server of the named cluster entry, or NULL: to tell a stale entry. Caller frees. */
char *th_kubeconfig_server(const char *path, const char *name);
#endif
