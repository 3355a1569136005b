/* RUN.
 *
 * What the process sees: the image's environment, the ARGs declared so far, PATH and HOME when the
 * image does not set them; an /etc/hosts with localhost. The step's key holds all of it, so that a
 * changed build argument runs the step again. Mount points that the runtime had to make inside the
 * root (for /proc, /etc/hosts, --mount targets) are taken away again when the image did not have
 * them, so that they do not end up in the layer.
 *
 * --mount: cache (a folder kept in the store, by id), tmpfs and bind (from the context, a stage or
 * an image; writes to a writable bind are thrown away by Docker and refused here unless read-only
 * holds). Secrets and ssh agents are not there: optional ones are passed over, required ones fail.
 */
#include "images/builder_priv.h"
#include "base/io.h"
#include "base/rand.h"
#include "images/content_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MOUNTS_MAX 32

struct mount_opt {
    char *type, *target, *source, *from, *id;
    bool read_only, required;
    uint64_t size_b;
    uint32_t mode, uid, gid;
};
struct run {
    struct build *b;
    struct bstage *st;
    const struct th_df_inst *in;
    struct th_strv argv, env;
    struct mount_opt mounts[MOUNTS_MAX];
    size_t n_mounts;
    struct broot froms[MOUNTS_MAX];
    char *sources[MOUNTS_MAX];
    char *cwd;
    const char *user;
    bool host_network;
    struct th_buf line; /* unfinished output line */
};

static void mount_opt_done(struct mount_opt *m)
{
    free(m->type);
    free(m->target);
    free(m->source);
    free(m->from);
    free(m->id);
}

static bool truthy(const char *v)
{
    return !*v || th_streq(v, "true") || th_streq(v, "1");
}

static int mount_key(struct run *r, struct mount_opt *m, const char *k, const char *v,
                     struct th_err *err)
{
    struct {
        const char *a, *b, *c;
        char **dst;
    } strs[] = {{"type", "", "", &m->type},
                {"target", "dst", "destination", &m->target},
                {"source", "src", "", &m->source},
                {"from", "", "", &m->from},
                {"id", "", "", &m->id}};
    for (size_t i = 0; i < TH_ARRAY_LEN(strs); i++) {
        if (th_streq(k, strs[i].a) || th_streq(k, strs[i].b) || th_streq(k, strs[i].c)) {
            free(*strs[i].dst);
            *strs[i].dst = th_xstrdup(v);
            return 0;
        }
    }
    if (th_streq(k, "ro") || th_streq(k, "readonly")) {
        m->read_only = truthy(v);
    } else if (th_streq(k, "rw") || th_streq(k, "readwrite")) {
        m->read_only = !truthy(v);
    } else if (th_streq(k, "required")) {
        m->required = truthy(v);
    } else if (th_streq(k, "size")) {
        char *end = NULL;
        m->size_b = strtoull(v, &end, 10);
        m->size_b <<= *end == 'k' || *end == 'K' ? 10 : *end == 'm' || *end == 'M' ? 20
                      : *end == 'g' || *end == 'G' ? 30 : 0;
    } else if (th_streq(k, "mode")) {
        m->mode = (uint32_t)strtoul(v, NULL, 8) & 07777;
    } else if (th_streq(k, "uid")) {
        m->uid = (uint32_t)strtoul(v, NULL, 10);
    } else if (th_streq(k, "gid")) {
        m->gid = (uint32_t)strtoul(v, NULL, 10);
    } else if (!th_streq(k, "sharing") && !th_streq(k, "env")) {
        return b_fault(r->b, TH_R_DOCKERFILE, err, "unexpected key '%s' in --mount", k);
    }
    return 0;
}

/* 1: a mount was added; 0: passed over. */
static int parse_mount(struct run *r, const char *text, struct th_err *err)
{
    th_autofree char *w = NULL;
    TH_TRY(b_expand(r->b, r->st, text, &w, err));
    if (r->n_mounts == MOUNTS_MAX) {
        return b_fault(r->b, TH_R_DOCKERFILE, err, "more than %d --mount flags", MOUNTS_MAX);
    }
    struct mount_opt *m = &r->mounts[r->n_mounts];
    *m = (struct mount_opt){.mode = 0755};
    r->n_mounts++;
    bool ro_said = strstr(w, "rw") || strstr(w, "readwrite");
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, w, ',');
    for (size_t i = 0; i < parts.n; i++) {
        char *eq = strchr(parts.v[i], '=');
        if (eq) {
            *eq = 0;
        }
        TH_TRY(mount_key(r, m, parts.v[i], eq ? eq + 1 : "", err));
    }
    const char *type = m->type ? m->type : "bind";
    if (th_streq(type, "secret") || th_streq(type, "ssh")) {
        if (m->required) {
            return b_fault(r->b, TH_R_UNSUPPORTED, err, "--mount=type=%s is not supported", type);
        }
        mount_opt_done(m);
        r->n_mounts--;
        return 0;
    }
    if (!th_streq(type, "cache") && !th_streq(type, "tmpfs") && !th_streq(type, "bind")) {
        return b_fault(r->b, TH_R_DOCKERFILE, err, "invalid mount type \"%s\"", type);
    }
    if (!m->target || !*m->target) {
        return b_fault(r->b, TH_R_DOCKERFILE, err, "--mount needs a target");
    }
    if (th_streq(type, "bind")) {
        m->read_only = true;
        if (ro_said) {
            b_event(r->b, TH_BUILD_NOTE, "bind mounts of RUN steps are read-only here");
        }
    }
    th_autofree char *abs = b_abs(r->st, m->target);
    free(m->target);
    m->target = th_steal(&abs);
    return 1;
}

static int take_flags(struct run *r, struct th_err *err)
{
    for (size_t i = 0; i < r->in->n_flags; i++) {
        const struct th_df_flag *f = &r->in->flags[i];
        if (th_streq(f->name, "mount")) {
            TH_TRY(parse_mount(r, f->value, err));
        } else if (th_streq(f->name, "network")) {
            if (!th_streq(f->value, "none") && !th_streq(f->value, "default") &&
                !th_streq(f->value, "host")) {
                return b_fault(r->b, TH_R_DOCKERFILE, err, "invalid network mode \"%s\"",
                               f->value);
            }
            r->host_network = th_streq(f->value, "host");
        } else if (!th_streq(f->value, "sandbox")) {
            return b_fault(r->b, TH_R_UNSUPPORTED, err, "--security=%s is not supported",
                           f->value);
        }
    }
    return 0;
}

/* ---- command and environment ---- */

/* The command with its heredocs: a lone heredoc is the script itself. */
static char *shell_text(const struct th_df_inst *in)
{
    const char *cmd = in->args.n ? in->args.v[0] : "";
    if (in->n_heredocs == 0) {
        return th_xstrdup(cmd);
    }
    const struct th_df_heredoc *h = &in->heredocs[0];
    bool lone = in->n_heredocs == 1 && th_startswith(cmd, "<<") && !strpbrk(cmd, " \t");
    if (lone) {
        return th_xstrdup(h->text);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, cmd);
    for (size_t i = 0; i < in->n_heredocs; i++) {
        th_buf_printf(&b, "\n%s%s", in->heredocs[i].text, in->heredocs[i].name);
    }
    return th_buf_steal(&b, NULL);
}

static bool has_env(const struct th_strv *env, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < env->n; i++) {
        if (strncmp(env->v[i], name, n) == 0 && env->v[i][n] == '=') {
            return true;
        }
    }
    return false;
}

static void make_argv(struct run *r)
{
    const struct th_df_inst *in = r->in;
    if (in->json) {
        for (size_t i = 0; i < in->args.n; i++) {
            th_strv_add(&r->argv, in->args.v[i]);
        }
        return;
    }
    th_autofree char *text = shell_text(in);
    const struct th_json *shell = th_json_get(b_config(r->st), "Shell");
    bool script = in->n_heredocs == 1 && th_startswith(text, "#!");
    if (script) { /* run by its own interpreter: "#!/usr/bin/env python3" with -c's cousin */
        size_t n = strcspn(text, "\n");
        th_autofree char *first = th_xstrndup(text + 2, n - 2);
        th_autostrv struct th_strv w = TH_STRV_INIT;
        th_strv_split(&w, first, ' ');
        for (size_t i = 0; i < w.n; i++) {
            if (*w.v[i]) {
                th_strv_add(&r->argv, w.v[i]);
            }
        }
        th_strv_add(&r->argv, "/dev/pipes/script");
        return;
    }
    if (th_json_len(shell) > 0) {
        for (size_t i = 0; i < th_json_len(shell); i++) {
            const char *w = th_json_str(th_json_at(shell, i));
            th_strv_add(&r->argv, w ? w : "");
        }
    } else {
        th_strv_add(&r->argv, "/bin/sh");
        th_strv_add(&r->argv, "-c");
    }
    th_strv_add(&r->argv, text);
}

static void make_env(struct run *r)
{
    static const char *const proxies[] = {"HTTP_PROXY",  "http_proxy", "HTTPS_PROXY",
                                          "https_proxy", "FTP_PROXY",  "ftp_proxy",
                                          "NO_PROXY",    "no_proxy",   "ALL_PROXY", "all_proxy"};
    const struct th_json *env = th_json_get(b_config(r->st), "Env");
    for (size_t i = 0; i < th_json_len(env); i++) {
        const char *kv = th_json_str(th_json_at(env, i));
        th_strv_add(&r->env, kv ? kv : "");
    }
    for (size_t i = 0; i < r->st->args.kv.n; i++) {
        const char *kv = r->st->args.kv.v[i];
        const char *eq = strchr(kv, '=');
        th_autofree char *name = th_xstrndup(kv, eq ? (size_t)(eq - kv) : strlen(kv));
        if (eq && !has_env(&r->env, name)) {
            th_strv_add(&r->env, kv);
        }
    }
    for (const char *const *a = r->b->o->build_args; a && *a; a++) {
        for (size_t i = 0; i < TH_ARRAY_LEN(proxies); i++) {
            size_t n = strlen(proxies[i]);
            if (strncmp(*a, proxies[i], n) == 0 && (*a)[n] == '=' &&
                !has_env(&r->env, proxies[i])) {
                th_strv_add(&r->env, *a);
            }
        }
    }
    if (!has_env(&r->env, "PATH")) {
        th_strv_add(&r->env, "PATH=" DEFAULT_PATH);
    }
}

static void make_key(struct run *r, char key[TH_SHA256_HEX_LEN])
{
    struct th_sha256 *h = b_key_begin(r->st, "RUN");
    for (size_t i = 0; i < r->argv.n; i++) {
        b_key_add(h, "argv", r->argv.v[i]);
    }
    for (size_t i = 0; i < r->env.n; i++) {
        b_key_add(h, "env", r->env.v[i]);
    }
    for (size_t i = 0; i < r->in->n_heredocs; i++) {
        b_key_add(h, "heredoc", r->in->heredocs[i].text);
    }
    for (size_t i = 0; i < r->in->n_flags; i++) {
        b_key_add(h, r->in->flags[i].name, r->in->flags[i].value);
    }
    for (size_t i = 0; i < r->n_mounts; i++) { /* what a stage holds is part of the step */
        int k = r->mounts[i].from ? b_find_stage(r->b, r->mounts[i].from,
                                                 (int)(r->st - r->b->stages)) : -1;
        for (size_t j = 0; k >= 0 && j < r->b->stages[k].n_layers; j++) {
            b_key_add(h, "from-layer", r->b->stages[k].layers[j].diff_id);
        }
    }
    b_key_add(h, "cwd", r->cwd);
    b_key_add(h, "user", r->user);
    b_key_end(h, key);
}

/* ---- running ---- */

static void output(void *arg, const char *p, size_t n)
{
    struct run *r = arg;
    while (n > 0) {
        const char *nl = memchr(p, '\n', n);
        size_t k = nl ? (size_t)(nl - p) : n;
        if (r->line.n < 8192) {
            th_buf_add(&r->line, p, k);
        }
        if (nl) {
            if (r->line.n > 0 && r->line.p[r->line.n - 1] == '\r') {
                th_buf_truncate(&r->line, r->line.n - 1);
            }
            b_event(r->b, TH_BUILD_OUTPUT, th_buf_cstr(&r->line));
            th_buf_clear(&r->line);
            k++;
        }
        p += k;
        n -= k;
    }
}

static int mount_source(struct run *r, size_t i, struct th_err *err)
{
    struct mount_opt *m = &r->mounts[i];
    const char *type = m->type ? m->type : "bind";
    if (th_streq(type, "tmpfs")) {
        return 0;
    }
    if (th_streq(type, "cache")) {
        char hex[TH_SHA256_HEX_LEN];
        const char *id = m->id ? m->id : m->target;
        th_sha256_hex(id, strlen(id), hex);
        r->sources[i] = th_xasprintf("%s/cachemounts/%s", r->b->s->dir, hex);
        bool fresh = !th_io_is_dir(r->sources[i]);
        TH_TRY(th_io_mkdir_p(r->sources[i], 0755, err));
        if (fresh && (chmod(r->sources[i], m->mode) < 0 ||
                      chown(r->sources[i], m->uid, m->gid) < 0)) {
            return th_fail_errno(err, errno, TH_R_IO, "set up cache mount %s", id);
        }
        return 0;
    }
    const char *root = r->b->context;
    if (m->from) {
        int k = b_find_stage(r->b, m->from, (int)(r->st - r->b->stages));
        if (k < 0) {
            return b_fault(r->b, TH_R_UNSUPPORTED, err,
                           "--mount=from=%s: only earlier stages can be mounted", m->from);
        }
        TH_TRY(b_root_open(r->b, r->b->stages[k].layers, r->b->stages[k].n_layers, false,
                           &r->froms[i], err));
        root = r->froms[i].root;
    }
    int rc = b_resolve_in(root, m->source ? m->source : "", &r->sources[i], err);
    return rc < 0 ? b_fault(r->b, TH_R_BUILD_FAILED, err, "--mount source \"%s\": not found",
                            m->source ? m->source : "/")
                  : 0;
}

/* Mount points the runtime will make: remembered while missing, removed after. */
static void note_missing(const char *root, const char *target, struct th_strv *made)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autobuf struct th_buf at = TH_BUF_INIT;
    th_strv_split(&parts, target, '/');
    for (size_t i = 0; i < parts.n; i++) {
        if (!*parts.v[i]) {
            continue;
        }
        th_buf_printf(&at, "/%s", parts.v[i]);
        th_autoclose int fd = b_open_in(root, th_buf_cstr(&at), O_PATH);
        if (fd < 0 && !th_strv_has(made, th_buf_cstr(&at))) {
            th_strv_add(made, th_buf_cstr(&at));
        }
    }
}

static void remove_made(const char *root, const struct th_strv *made)
{
    for (size_t i = made->n; i-- > 0;) {
        const char *p = made->v[i];
        const char *base = th_path_base(p);
        th_autofree char *dir = th_xstrndup(p, (size_t)(base - p));
        th_autoclose int fd = b_open_in(root, dir, O_RDONLY | O_DIRECTORY);
        struct stat st;
        if (fd < 0 || fstatat(fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            (void)unlinkat(fd, base, AT_REMOVEDIR); /* only when nothing was put there */
        } else if (S_ISREG(st.st_mode) && st.st_size == 0) {
            (void)unlinkat(fd, base, 0);
        }
    }
}

static int start(struct run *r, const char *root, const struct th_run_mount *mounts, size_t n,
                 int *ret_exit, struct th_err *err)
{
    uint32_t *gids = NULL;
    char *home = NULL;
    char id[32] = "thimble-build-";
    struct th_run_spec spec = {.id = id,
                               .rootfs = root,
                               .cwd = r->cwd,
                               .mounts = mounts,
                               .n_mounts = n,
                               .host_network = r->host_network,
                               .cancel = r->b->o->cancel,
                               .output = output,
                               .output_arg = r};
    int rc = th_image_user(root, r->user, &spec.uid, &spec.gid, &gids, &spec.n_gids, &home, err);
    if (rc < 0) {
        return th_wrap(err, "%s:%d", th_path_base(r->b->file), r->in->line);
    }
    spec.gids = gids;
    if (!has_env(&r->env, "HOME")) {
        th_strv_addf(&r->env, "HOME=%s", home);
    }
    th_rand_suffix(id + strlen(id), 12);
    spec.argv = (const char *const *)r->argv.v;
    spec.env = (const char *const *)r->env.v;
    rc = r->b->o->runner->run(r->b->o->runner->arg, &spec, ret_exit, err);
    if (r->line.n > 0) {
        output(r, "\n", 1);
    }
    free(gids);
    free(home);
    return rc;
}

static int failed(struct run *r, int exit_code, struct th_err *err)
{
    th_autofree char *cmd = th_strv_join(&r->argv, " ");
    (void)b_fault(r->b, TH_R_BUILD_FAILED, err,
                  "process \"%.300s\" did not complete successfully: exit code: %d", cmd,
                  exit_code);
    if (exit_code == 137) {
        return th_hint(err, "the process was killed, perhaps for lack of memory: give the machine "
                            "more with thimble start --memory");
    }
    return th_hint(err, "the step's output above says why");
}

static int in_root(struct run *r, const char *root, struct th_err *err)
{
    static const char *const system_dirs[] = {"/proc", "/sys", "/dev"};
    struct th_run_mount mounts[MOUNTS_MAX + 3];
    size_t n = 0;
    th_autostrv struct th_strv made = TH_STRV_INIT;
    th_autofree char *hosts = th_images_session_file(r->b->ss, "hosts");
    th_autofree char *script = th_images_session_file(r->b->ss, "script");
    static const char hosts_text[] = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n";
    TH_TRY(th_io_write_file(hosts, hosts_text, sizeof(hosts_text) - 1, 0644, err));
    mounts[n++] = (struct th_run_mount){.source = hosts, .target = "/etc/hosts"};
    if (r->host_network && th_io_exists("/etc/resolv.conf")) {
        mounts[n++] = (struct th_run_mount){
            .source = "/etc/resolv.conf", .target = "/etc/resolv.conf", .read_only = true};
    }
    if (r->argv.n && th_streq(r->argv.v[r->argv.n - 1], "/dev/pipes/script")) {
        const char *text = r->in->heredocs[0].text;
        TH_TRY(th_io_write_file(script, text, strlen(text), 0755, err));
        mounts[n++] = (struct th_run_mount){.source = script, .target = "/dev/pipes/script"};
    }
    for (size_t i = 0; i < r->n_mounts; i++) {
        TH_TRY(mount_source(r, i, err));
        mounts[n++] = (struct th_run_mount){.source = r->sources[i],
                                            .target = r->mounts[i].target,
                                            .read_only = r->mounts[i].read_only,
                                            .tmpfs_size_b = r->mounts[i].size_b};
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(system_dirs); i++) {
        note_missing(root, system_dirs[i], &made);
    }
    for (size_t i = 0; i < n; i++) {
        if (!th_startswith(mounts[i].target, "/dev/")) {
            note_missing(root, mounts[i].target, &made);
        }
    }
    int code = 0;
    int rc = start(r, root, mounts, n, &code, err);
    remove_made(root, &made);
    return rc >= 0 && code != 0 ? failed(r, code, err) : rc;
}

static int perform(struct run *r, struct th_err *err)
{
    char key[TH_SHA256_HEX_LEN];
    TH_TRY(take_flags(r, err));
    make_argv(r);
    make_env(r);
    r->cwd = b_abs(r->st, "");
    r->user = th_json_path_str(b_config(r->st), "User");
    make_key(r, key);
    if (b_cache_hit(r->b, r->st, key, err)) {
        return 0;
    }
    if (!r->b->o->runner) {
        return b_fault(r->b, TH_R_UNSUPPORTED, err, "RUN steps cannot be run here");
    }
    struct broot root = {0};
    TH_TRY(b_root_open(r->b, r->st->layers, r->st->n_layers, true, &root, err));
    int rc = in_root(r, root.root, err);
    if (rc >= 0 && b_canceled(r->b)) {
        rc = th_fail(err, TH_R_CANCELED, "build canceled");
    }
    rc = rc < 0 ? rc : b_commit(r->b, r->st, &root, key, err);
    b_root_close(&root);
    return rc;
}

int b_run(struct build *b, struct bstage *st, const struct th_df_inst *in, struct th_err *err)
{
    struct run r = {.b = b, .st = st, .in = in};
    size_t before = st->n_layers;
    int rc = perform(&r, err);
    if (rc >= 0) {
        th_autofree char *cmd = th_strv_join(&r.argv, " ");
        th_autofree char *by = th_xasprintf("RUN %s # buildkit", cmd);
        b_history(st, by, st->n_layers == before);
    }
    for (size_t i = 0; i < r.n_mounts; i++) {
        mount_opt_done(&r.mounts[i]);
        b_root_close(&r.froms[i]);
        free(r.sources[i]);
    }
    th_strv_done(&r.argv);
    th_strv_done(&r.env);
    th_buf_done(&r.line);
    free(r.cwd);
    return rc;
}
