/* "user[:group]" of an image, looked up in the image's own /etc/passwd and /etc/group.
 *
 * As runc's and Docker's GetExecUser: a name or a number; a number need not be listed; the group
 * defaults to the user's, or to 0 for an unlisted number; supplementary groups are those that list
 * the user's name, unless a group was given. The files are opened inside the root, so that a link
 * in the image cannot show the machine's own.
 */
#include "images/builder_priv.h"
#include "base/io.h"

#include <fcntl.h>

#define FILE_MAX_B (4u << 20)
#define GIDS_MAX 1024

static void read_in(const char *root, const char *path, struct th_buf *b)
{
    th_autoclose int fd = b_open_in(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || th_io_read_fd(fd, FILE_MAX_B, b, NULL) < 0) {
        th_buf_clear(b); /* no file: no names */
    }
}

static bool parse_id(const char *s, uint32_t *ret)
{
    char *end = NULL;
    if (*s < '0' || *s > '9') {
        return false;
    }
    unsigned long v = strtoul(s, &end, 10);
    if (*end || v > INT32_MAX) {
        return false;
    }
    *ret = (uint32_t)v;
    return true;
}

/* Calls fn with the fields of each line until it returns true. */
static bool each_line(const struct th_buf *b, size_t min_fields,
                      bool (*fn)(void *arg, char **f), void *arg)
{
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(b), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        th_autostrv struct th_strv f = TH_STRV_INIT;
        th_strv_split(&f, lines.v[i], ':');
        if (f.n >= min_fields && lines.v[i][0] != '#' && fn(arg, f.v)) {
            return true;
        }
    }
    return false;
}

struct find_user {
    const char *want;
    bool numeric;
    uint32_t uid, gid;
    char *name, *home;
};

static bool match_user(void *arg, char **f)
{
    struct find_user *u = arg;
    uint32_t uid = 0, gid = 0;
    if (!parse_id(f[2], &uid) || !parse_id(f[3], &gid)) {
        return false;
    }
    if (!th_streq(f[0], u->want) && !(u->numeric && uid == u->uid)) {
        return false;
    }
    u->uid = uid;
    u->gid = gid;
    u->name = th_xstrdup(f[0]);
    u->home = th_xstrdup(f[5]);
    return true;
}

struct find_group {
    const char *want;  /* name to find, or NULL */
    const char *user;  /* member whose groups are gathered, or NULL */
    uint32_t gid;
    uint32_t *gids;
    size_t n, cap;
};

static bool match_group(void *arg, char **f)
{
    struct find_group *g = arg;
    uint32_t gid = 0;
    if (!parse_id(f[2], &gid)) {
        return false;
    }
    if (g->want) {
        g->gid = gid;
        return th_streq(f[0], g->want);
    }
    th_autostrv struct th_strv members = TH_STRV_INIT;
    th_strv_split(&members, f[3], ',');
    if (g->n < GIDS_MAX && th_strv_has(&members, g->user)) {
        g->gids = th_xgrow(g->gids, &g->cap, g->n + 1, sizeof(*g->gids));
        g->gids[g->n++] = gid;
    }
    return false;
}

int th_image_user(const char *rootfs, const char *user, uint32_t *ret_uid, uint32_t *ret_gid,
                  uint32_t **ret_gids, size_t *ret_n_gids, char **ret_home, struct th_err *err)
{
    th_autobuf struct th_buf passwd = TH_BUF_INIT, group = TH_BUF_INIT;
    read_in(rootfs, "etc/passwd", &passwd);
    read_in(rootfs, "etc/group", &group);
    th_autofree char *name = th_xstrdup(user && *user ? user : "0");
    char *colon = strchr(name, ':');
    const char *gname = NULL;
    if (colon) {
        *colon = 0;
        gname = colon[1] ? colon + 1 : NULL;
    }
    struct find_user u = {.want = *name ? name : "0"};
    u.numeric = parse_id(u.want, &u.uid);
    bool found = each_line(&passwd, 6, match_user, &u);
    th_autofree char *uname = u.name, *home = u.home;
    if (!found && !u.numeric) {
        (void)th_fail(err, TH_R_INVALID, "unable to find user %s: no matching entries in passwd "
                      "file", name);
        return th_hint(err, "use a number, or add the user in the image");
    }
    struct find_group g = {.want = gname};
    if (gname && !parse_id(gname, &u.gid)) {
        if (!each_line(&group, 3, match_group, &g)) {
            (void)th_fail(err, TH_R_INVALID, "unable to find group %s: no matching entries in "
                          "group file", gname);
            return th_hint(err, "use a number, or add the group in the image");
        }
        u.gid = g.gid;
    }
    if (!gname && uname) {
        g.user = uname;
        (void)each_line(&group, 4, match_group, &g);
    }
    *ret_uid = u.uid;
    *ret_gid = u.gid;
    if (ret_gids) {
        *ret_gids = th_steal(&g.gids);
        *ret_n_gids = g.n;
    }
    if (ret_home) {
        *ret_home = home && *home ? th_steal(&home) : th_xstrdup("/");
    }
    free(g.gids);
    return 0;
}
