#ifndef TH_CLI_PROFILE_NOTE_H
#define TH_CLI_PROFILE_NOTE_H
/* Small facts the CLI remembers about a profile ("previous-context", "kubeconfig"), kept in
 * $XDG_STATE_HOME/thimble-cli/<profile>.json, since the launcher owns the profile's own folder. */
#include "base/err.h"
/* NULL when there is none; the caller frees. */
char *th_profile_note_get(const char *profile, const char *name);
int th_profile_note_set(const char *profile, const char *name, const char *value,
                        struct th_err *err) TH_MUST_USE;
void th_profile_note_forget(const char *profile); /* all of them */
#endif
