/* Volumes: from spec.volumes to folders on the node, and from volumeMounts to OCI mounts.
 *
 * Each volume lives where upstream has it, <pod>/volumes/kubernetes.io~<type>/<name>. Setting up is
 * idempotent and runs before the first container; configMap, secret, downwardAPI and projected
 * volumes are written again while the pod runs (once a minute, like upstream's sync loop, and when
 * a token is due). subPath mounts are bind mounts of a path opened step by step inside the volume
 * (openat2 RESOLVE_BENEATH), so that a link cannot lead out of it.
 *
 * Claims (persistentVolumeClaim, ephemeral) are vol_claim.c's, images vol_image.c's. Not here yet, and
 * said so by FailedMount: csi, and the network file systems. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "controlplane/schema/quantity.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>

#define TMPFS_MAGIC 0x01021994
#define REFRESH_MS 60000

static const struct {
    const char *type;
    const char *plugin;
} TYPES[] = {{"emptyDir", "empty-dir"},   {"hostPath", "host-path"},     {"configMap", "configmap"},
             {"secret", "secret"},        {"projected", "projected"},    {"downwardAPI", "downward-api"},
             {"image", "image"}};

static const char *vol_type(const struct th_json *vol, const char **ret_plugin)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(TYPES); i++) {
        if (th_json_get(vol, TYPES[i].type)) {
            *ret_plugin = TYPES[i].plugin;
            return TYPES[i].type;
        }
    }
    struct th_json_iter it = TH_JSON_ITER(vol);
    while (th_json_next(&it)) {
        if (!th_streq(it.name, "name") && it.value) {
            *ret_plugin = NULL;
            return it.name;
        }
    }
    *ret_plugin = "empty-dir"; /* a volume without a source is an emptyDir */
    return "emptyDir";
}

char *volume_dir(const struct pod *p, const struct th_json *vol)
{
    const char *plugin = NULL;
    const char *type = vol_type(vol, &plugin);
    if (vol_is_claim(vol)) {
        return vol_claim_dir(p, vol);
    }
    if (th_streq(type, "hostPath")) {
        return th_xstrdup(th_json_path_str(vol, "hostPath.path"));
    }
    return th_path_joinf(p->dir, "volumes/kubernetes.io~%s/%s", plugin ? plugin : "none",
                         th_json_path_str(vol, "name"));
}

static int64_t fs_group(const struct pod *p)
{
    return th_json_path_int(p->obj, "spec.securityContext.fsGroup", -1);
}

static int64_t chown_gid;
static pthread_mutex_t chown_mu = PTHREAD_MUTEX_INITIALIZER; /* nftw has no argument */

static int chown_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    (void)!lchown(path, (uid_t)-1, (gid_t)chown_gid);
    if (type == FTW_SL) {
        return 0;
    }
    mode_t mode = st->st_mode & 07777;
    mode |= S_ISDIR(st->st_mode) ? 02770 : 0660;
    (void)chmod(path, mode);
    return 0;
}

void vol_chown(const char *path, int64_t gid, bool read_only)
{
    if (gid < 0 || read_only) {
        return;
    }
    pthread_mutex_lock(&chown_mu);
    chown_gid = gid;
    (void)nftw(path, chown_one, 16, FTW_PHYS | FTW_MOUNT);
    pthread_mutex_unlock(&chown_mu);
}

static bool is_tmpfs(const char *dir)
{
    struct statfs s;
    struct stat a, b;
    th_autofree char *up = th_path_join(dir, "..");
    return statfs(dir, &s) == 0 && s.f_type == TMPFS_MAGIC && stat(dir, &a) == 0 &&
           stat(up, &b) == 0 && a.st_dev != b.st_dev;
}

static int tmpfs_mount(const char *dir, int64_t size, const char *mode, struct th_err *err)
{
    TH_TRY(th_io_mkdir_p(dir, 0777, err));
    if (is_tmpfs(dir)) {
        return 0;
    }
    th_autofree char *data = size > 0 ? th_xasprintf("mode=%s,size=%lld", mode, (long long)size)
                                      : th_xasprintf("mode=%s", mode);
    if (mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, data) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "mounting tmpfs on %s", dir);
    }
    return 0;
}

static int setup_empty_dir(struct pod *p, const struct th_json *vol, const char *dir, struct th_err *err)
{
    struct th_json *s = th_json_get(vol, "emptyDir");
    const char *medium = th_json_path_str(s, "medium");
    bool fresh = !th_io_exists(dir);
    if (th_streq(medium, "Memory")) {
        TH_TRY(tmpfs_mount(dir, quantity_value(th_json_get(s, "sizeLimit"), 0), "0777", err));
    } else if (medium && *medium) {
        return th_fail(err, TH_R_UNSUPPORTED, "emptyDir medium \"%s\" is not supported", medium);
    } else {
        TH_TRY(th_io_mkdir_p(dir, 0777, err));
    }
    if (fresh) {
        (void)chmod(dir, 0777);
        vol_chown(dir, fs_group(p), false);
        if (fs_group(p) >= 0) {
            (void)chmod(dir, 02777);
        }
    }
    return 0;
}

int vol_host_path(const struct th_json *vol, const char *dir, struct th_err *err)
{
    const char *t = th_json_path_str(vol, "hostPath.type");
    struct stat st;
    bool there = stat(dir, &st) == 0;
    if (!t || !*t) {
        /* no check: runtimes make a missing folder */
        return there ? 0 : th_io_mkdir_p(dir, 0755, err);
    }
    if (th_streq(t, "DirectoryOrCreate") && !there) {
        return th_io_mkdir_p(dir, 0755, err);
    }
    if (th_streq(t, "FileOrCreate") && !there) {
        return th_io_write_file(dir, "", 0, 0644, err);
    }
    static const struct {
        const char *type, *what;
        mode_t fmt;
    } kinds[] = {{"Directory", "directory", S_IFDIR},       {"DirectoryOrCreate", "directory", S_IFDIR},
                 {"File", "file", S_IFREG},                 {"FileOrCreate", "file", S_IFREG},
                 {"Socket", "socket file", S_IFSOCK},       {"CharDevice", "character device", S_IFCHR},
                 {"BlockDevice", "block device", S_IFBLK}};
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (th_streq(t, kinds[i].type)) {
            if (!there || (st.st_mode & S_IFMT) != kinds[i].fmt) {
                return th_fail(err, TH_R_INVALID, "hostPath type check failed: %s is not a %s", dir,
                               kinds[i].what);
            }
            return 0;
        }
    }
    return th_fail(err, TH_R_INVALID, "unknown hostPath type \"%s\"", t);
}

static int setup_files(struct pod *p, const struct th_json *vol, const char *dir, struct th_err *err)
{
    struct vol_files f = {0};
    int64_t refresh = REFRESH_MS;
    int r = vol_collect(p, vol, dir, &f, &refresh, err);
    if (r >= 0) {
        int64_t gid = fs_group(p);
        for (size_t i = 0; i < f.n && gid >= 0; i++) {
            f.v[i].mode |= 0440;
        }
        bool changed = false;
        r = vol_write(dir, &f, gid, &changed, err);
    }
    vol_files_done(&f);
    int64_t at = th_mono_ms() + refresh;
    if (p->volumes_refresh_at == 0 || at < p->volumes_refresh_at) {
        p->volumes_refresh_at = at;
    }
    return r;
}

static int setup_one(struct pod *p, const struct th_json *vol, bool refresh_only, struct th_err *err)
{
    const char *plugin = NULL;
    const char *type = vol_type(vol, &plugin);
    if (vol_is_claim(vol)) {
        return refresh_only ? 0 : vol_claim_setup(p, vol, err);
    }
    if (!plugin) {
        return th_fail(err, TH_R_UNSUPPORTED, "volumes of type %s are not supported by this node yet",
                       type);
    }
    th_autofree char *dir = volume_dir(p, vol);
    if (th_streq(type, "emptyDir")) {
        return refresh_only ? 0 : setup_empty_dir(p, vol, dir, err);
    }
    if (th_streq(type, "image")) {
        return 0; /* made ready with the containers that mount it */
    }
    if (th_streq(type, "hostPath")) {
        return refresh_only ? 0 : vol_host_path(vol, dir, err);
    }
    return setup_files(p, vol, dir, err);
}

static int setup_all(struct pod *p, bool refresh_only, struct th_err *err)
{
    struct th_json *vols = th_json_path(p->obj, "spec.volumes");
    p->volumes_refresh_at = 0;
    for (size_t i = 0; i < th_json_len(vols); i++) {
        struct th_json *v = th_json_at(vols, i);
        int r = setup_one(p, v, refresh_only, err);
        if (r < 0 && vol_is_claim(v)) {
            return r; /* says it all */
        }
        if (r < 0) {
            return th_wrap(err, "MountVolume.SetUp failed for volume \"%s\" ", th_json_path_str(v, "name"));
        }
    }
    return 0;
}

int volumes_setup(struct pod *p, struct th_err *err)
{
    th_autofree char *shm = th_path_join(p->dir, "shm");
    TH_TRY(tmpfs_mount(shm, 64 << 20, "1777", err));
    return setup_all(p, false, err);
}

int volumes_refresh(struct pod *p, struct th_err *err)
{
    int r = setup_all(p, true, err);
    if (p->volumes_refresh_at == 0) {
        p->volumes_refresh_at = r < 0 ? th_mono_ms() + REFRESH_MS : INT64_MAX;
    }
    return r;
}

static void unmount_below(const char *dir, int depth)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (depth > 6 || !th_io_is_dir(dir) || th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *one = th_path_join(dir, names.v[i]);
        while (umount2(one, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
        }
        struct stat st;
        if (lstat(one, &st) == 0 && S_ISDIR(st.st_mode)) {
            unmount_below(one, depth + 1);
        }
    }
}

void volumes_teardown(struct pod *p)
{
    static const char *const subs[] = {"subpaths", "volumes"};
    for (size_t i = 0; i < 2; i++) {
        th_autofree char *dir = th_path_join(p->dir, subs[i]);
        unmount_below(dir, 0);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_io_rm_rf(dir, &err) < 0) {
            th_warn(NODE_MOD, "volumes not removed", "pod=%s/%s err=%s", p->ns, p->name,
                    th_log_q(err.msg));
        }
    }
    vol_image_teardown(p);
    th_autofree char *shm = th_path_join(p->dir, "shm");
    while (umount2(shm, MNT_DETACH) == 0) {
    }
}

static struct th_json *find_volume(struct pod *p, const char *name)
{
    struct th_json *vols = th_json_path(p->obj, "spec.volumes");
    for (size_t i = 0; i < th_json_len(vols); i++) {
        if (th_streq(th_json_path_str(th_json_at(vols, i), "name"), name)) {
            return th_json_at(vols, i);
        }
    }
    return NULL;
}

/* Opens sub inside dir without leaving it; a missing folder is made. */
static int open_beneath(const char *dir, const char *sub, struct th_err *err)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
    th_autoclose int root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", dir);
    }
    int fd = (int)syscall(SYS_openat2, root, sub, &how, sizeof(how));
    if (fd >= 0) {
        return fd;
    }
    if (errno != ENOENT) {
        return th_fail_errno(err, errno, TH_R_INVALID, "subPath %s", sub);
    }
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, sub, '/');
    int at = dup(root);
    for (size_t i = 0; i < parts.n && at >= 0; i++) {
        if (!parts.v[i][0]) {
            continue;
        }
        (void)mkdirat(at, parts.v[i], 0750);
        int next = (int)syscall(SYS_openat2, at, parts.v[i], &how, sizeof(how));
        int e = errno;
        close(at);
        at = next;
        errno = e;
    }
    return at >= 0 ? at : th_fail_errno(err, errno, TH_R_IO, "subPath %s", sub);
}

static int sub_path(struct pod *p, const struct ctr *c, size_t index, const char *dir, const char *sub,
                    char **ret, struct th_err *err)
{
    th_autoclose int fd = open_beneath(dir, sub, err);
    if (fd < 0) {
        return fd;
    }
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "subPath %s", sub);
    }
    th_autofree char *parent = th_path_joinf(p->dir, "subpaths/%s", c->name);
    th_autofree char *target = th_path_joinf(parent, "%zu", index);
    TH_TRY(th_io_mkdir_p(parent, 0750, err));
    while (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    }
    int r = S_ISDIR(st.st_mode) ? th_io_mkdir_p(target, 0750, err)
                                : th_io_write_file(target, "", 0, 0640, err);
    TH_TRY(r);
    th_autofree char *source = th_xasprintf("/proc/self/fd/%d", fd);
    if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "subPath %s", sub);
    }
    *ret = th_steal(&target);
    return 0;
}

static const char *const PROPAGATION[][2] = {{"None", "rprivate"},
                                             {"HostToContainer", "rslave"},
                                             {"Bidirectional", "rshared"}};

static int one_mount(struct pod *p, const struct ctr *c, size_t index, const struct th_json *m,
                     struct th_json *out, struct th_err *err)
{
    const char *name = th_json_path_str(m, "name"), *dest = th_json_path_str(m, "mountPath");
    struct th_json *vol = find_volume(p, name);
    if (!vol || !dest) {
        return th_fail(err, TH_R_INVALID, "volume \"%s\" of container %s is not in the pod",
                       name ? name : "", c->name);
    }
    th_autofree char *src = volume_dir(p, vol);
    const char *sub = th_json_path_str(m, "subPath");
    const char *expr = th_json_path_str(m, "subPathExpr");
    th_autofree char *expanded = NULL;
    if (expr && *expr) {
        TH_AUTO(th_json) struct th_json *env = NULL;
        TH_TRY(env_build(p, c, &env, err));
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_puts(&b, expr);
        struct th_json_iter it = TH_JSON_ITER(env);
        expanded = th_buf_steal(&b, NULL);
        while (th_json_next(&it)) { /* few variables: plain replacement of $(NAME) */
            th_autofree char *tag = th_xasprintf("$(%s)", it.name);
            char *at;
            while ((at = strstr(expanded, tag))) {
                char *s = th_xasprintf("%.*s%s%s", (int)(at - expanded), expanded,
                                       th_json_str(it.value), at + strlen(tag));
                free(expanded);
                expanded = s;
            }
        }
        sub = expanded;
    }
    if (sub && *sub) {
        char *path = NULL;
        TH_TRY(sub_path(p, c, index, src, sub, &path, err));
        free(src);
        src = path;
    }
    const char *plugin = NULL;
    const char *type = vol_type(vol, &plugin);
    bool ro = th_json_path_bool(m, "readOnly", false);
    /* what the API writes, containers do not: upstream mounts these read-only */
    ro = ro || (vol_is_claim(vol) ? vol_claim_read_only(vol)
                                  : !(th_streq(type, "emptyDir") || th_streq(type, "hostPath")));
    const char *prop = th_json_path_str(m, "mountPropagation");
    const char *oci_prop = "rprivate";
    for (size_t i = 0; prop && i < TH_ARRAY_LEN(PROPAGATION); i++) {
        if (th_streq(prop, PROPAGATION[i][0])) {
            oci_prop = PROPAGATION[i][1];
        }
    }
    th_autofree char *abs = dest[0] == '/' ? th_xstrdup(dest) : th_xasprintf("/%s", dest);
    struct th_json *o = th_json_build("{'destination':%s,'type':'bind','source':%s}", abs, src);
    struct th_json *opts = th_json_path_array(o, "options");
    th_json_append_str(opts, "rbind");
    th_json_append_str(opts, oci_prop);
    th_json_append_str(opts, ro ? "ro" : "rw");
    th_json_append(out, o);
    return 0;
}

int volumes_mounts(struct pod *p, const struct ctr *c, struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *out = th_json_array();
    struct th_json *list = th_json_get(c->spec, "volumeMounts");
    for (size_t i = 0; i < th_json_len(list); i++) {
        TH_TRY(one_mount(p, c, i, th_json_at(list, i), out, err));
    }
    *ret = th_steal(&out);
    return 0;
}
