/* See profile_note.h. A file that cannot be read counts as empty: nothing here is needed to work.
 */
#include "cli/profile_note.h"
#include "base/io.h"
#include "base/json/json.h"
#include "base/limits.h"

static char *note_path(const char *profile)
{
    const char *state = getenv("XDG_STATE_HOME");
    if (state && *state) {
        return th_path_joinf(state, "thimble-cli/%s.json", profile);
    }
    const char *home = getenv("HOME");
    return th_path_joinf(home && *home ? home : "/root", ".local/state/thimble-cli/%s.json",
                         profile);
}

static struct th_json *load(const char *path)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_json *o TH_AUTO(th_json) = NULL;
    if (th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, NULL) < 0 || b.n == 0 ||
        th_json_parse(b.p, b.n, NULL, &o, NULL) < 0 || !th_json_is(o, TH_JSON_OBJECT)) {
        return th_json_object();
    }
    return th_steal(&o);
}

char *th_profile_note_get(const char *profile, const char *name)
{
    th_autofree char *path = note_path(profile);
    struct th_json *o TH_AUTO(th_json) = load(path);
    return th_xstrdup(th_json_str(th_json_get(o, name)));
}

int th_profile_note_set(const char *profile, const char *name, const char *value,
                        struct th_err *err)
{
    th_autofree char *path = note_path(profile);
    th_autofree char *folder = th_xstrdup(path);
    *strrchr(folder, '/') = 0;
    TH_TRY(th_io_mkdir_p(folder, 0700, err));
    struct th_json *o TH_AUTO(th_json) = load(path);
    th_json_set_str(o, name, value);
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_json_dump(o, &b);
    return th_io_write_atomic(path, b.p, b.n, 0600, err);
}

void th_profile_note_forget(const char *profile)
{
    th_autofree char *path = note_path(profile);
    (void)unlink(path);
}
