/* Every other instruction: they only change the image's config (WORKDIR also makes the folder). */
#include "images/builder_priv.h"
#include "base/clock.h"
#include "base/io.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <strings.h>
#include <sys/stat.h>

struct th_json *b_config(struct bstage *st)
{
    return th_json_path_object(st->doc, "config");
}

struct lookup {
    struct build *b;
    struct bstage *st;
};

/* ENV wins over ARG of the same name. */
static const char *find_var(void *arg, const char *name, size_t n)
{
    struct lookup *l = arg;
    if (l->st) {
        const struct th_json *env = th_json_get(th_json_get(l->st->doc, "config"), "Env");
        for (size_t i = th_json_len(env); i-- > 0;) {
            const char *kv = th_json_str(th_json_at(env, i));
            if (kv && strncmp(kv, name, n) == 0 && kv[n] == '=') {
                return kv + n + 1;
            }
        }
        return bvars_get(&l->st->args, name, n);
    }
    return bvars_get(&l->b->globals, name, n);
}

int b_expand(struct build *b, struct bstage *st, const char *word, char **ret, struct th_err *err)
{
    struct lookup l = {b, st};
    th_autobuf struct th_buf out = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (th_df_expand(word, b->df->escape, find_var, &l, &out, &why) < 0) {
        return b_fault(b, TH_R_DOCKERFILE, err, "failed to process \"%.200s\": %s", word, why.msg);
    }
    char *s = th_buf_steal(&out, NULL);
    *ret = s ? s : th_xstrdup("");
    return 0;
}

int b_expand_words(struct build *b, struct bstage *st, const char *word, struct th_strv *out,
                   struct th_err *err)
{
    struct lookup l = {b, st};
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (th_df_expand_words(word, b->df->escape, find_var, &l, out, &why) < 0) {
        return b_fault(b, TH_R_DOCKERFILE, err, "failed to process \"%.200s\": %s", word, why.msg);
    }
    return 0;
}

void b_history(struct bstage *st, const char *created_by, bool empty)
{
    char t[TH_TIME_LEN];
    struct th_json *h =
        th_json_build("{'created':%s,'created_by':%s,'comment':%s}", th_time_format(th_now_ms(), t),
                      created_by, "buildkit.dockerfile.v0");
    if (empty) {
        th_json_set_bool(h, "empty_layer", true);
    }
    th_json_append(th_json_path_array(st->doc, "history"), h);
}

char *b_abs(struct bstage *st, const char *path)
{
    const char *wd = th_json_path_str(b_config(st), "WorkingDir");
    th_autofree char *all =
        path[0] == '/' ? th_xstrdup(path) : th_xasprintf("%s/%s", wd && *wd ? wd : "", path);
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_strv_split(&parts, all, '/');
    for (size_t i = 0; i < parts.n; i++) {
        const char *s = parts.v[i];
        if (!*s || th_streq(s, ".")) {
            continue;
        }
        if (th_streq(s, "..")) {
            while (b.n > 0 && b.p[b.n - 1] != '/') {
                th_buf_truncate(&b, b.n - 1);
            }
            if (b.n > 0) {
                th_buf_truncate(&b, b.n - 1);
            }
            continue;
        }
        th_buf_printf(&b, "/%s", s);
    }
    return b.n ? th_buf_steal(&b, NULL) : th_xstrdup("/");
}

static void set_array(struct th_json *config, const char *name, const struct th_df_inst *in,
                      size_t from, const struct th_json *shell)
{
    struct th_json *a = th_json_array();
    if (!in->json) {
        for (size_t i = 0; i < th_json_len(shell); i++) {
            th_json_append_str(a, th_json_str(th_json_at(shell, i)));
        }
        if (th_json_len(shell) == 0) {
            th_json_append_str(a, "/bin/sh");
            th_json_append_str(a, "-c");
        }
    }
    for (size_t i = from; i < in->args.n; i++) {
        th_json_append_str(a, in->args.v[i]);
    }
    th_json_set(config, name, a);
}

static void set_env(struct th_json *config, const char *name, const char *value)
{
    struct th_json *env = th_json_path_array(config, "Env");
    size_t n = strlen(name);
    for (size_t i = 0; i < th_json_len(env); i++) {
        const char *kv = th_json_str(th_json_at(env, i));
        if (kv && strncmp(kv, name, n) == 0 && kv[n] == '=') {
            th_json_set_at(env, i, th_json_stringf("%s=%s", name, value));
            return;
        }
    }
    th_json_append(env, th_json_stringf("%s=%s", name, value));
}

/* ENV and LABEL: every value is expanded with what was set before this instruction. */
static int pairs(struct build *b, struct bstage *st, const struct th_df_inst *in,
                 struct th_err *err)
{
    th_autostrv struct th_strv names = TH_STRV_INIT, values = TH_STRV_INIT;
    for (size_t i = 0; i < in->args.n; i++) {
        const char *eq = strchr(in->args.v[i], '=');
        th_autofree char *raw = th_xstrndup(in->args.v[i], (size_t)(eq - in->args.v[i]));
        th_autofree char *name = NULL, *value = NULL;
        TH_TRY(b_expand(b, st, raw, &name, err));
        TH_TRY(b_expand(b, st, eq + 1, &value, err));
        th_strv_take(&names, th_steal(&name));
        th_strv_take(&values, th_steal(&value));
    }
    th_autobuf struct th_buf by = TH_BUF_INIT;
    th_buf_puts(&by, th_df_op_name(in->op));
    for (size_t i = 0; i < names.n; i++) {
        th_buf_printf(&by, " %s=%s", names.v[i], values.v[i]);
        if (in->op == TH_DF_ENV) {
            set_env(b_config(st), names.v[i], values.v[i]);
        } else {
            struct th_json *labels = th_json_path_object(b_config(st), "Labels");
            th_json_set_str(labels, names.v[i], values.v[i]);
        }
    }
    b_history(st, th_buf_cstr(&by), true);
    return 0;
}

static const char *build_arg(const struct build *b, const char *name)
{
    const char *hit = NULL;
    size_t n = strlen(name);
    for (const char *const *a = b->o->build_args; a && *a; a++) {
        if (strncmp(*a, name, n) == 0 && (*a)[n] == '=') {
            hit = *a + n + 1;
        }
    }
    return hit;
}

static int arg(struct build *b, struct bstage *st, const struct th_df_inst *in, struct th_err *err)
{
    for (size_t i = 0; i < in->args.n; i++) {
        const char *eq = strchr(in->args.v[i], '=');
        th_autofree char *name =
            th_xstrndup(in->args.v[i], eq ? (size_t)(eq - in->args.v[i]) : strlen(in->args.v[i]));
        th_autofree char *value = NULL;
        const char *given = build_arg(b, name);
        const char *global = bvars_get(&b->globals, name, strlen(name));
        if (given) {
            value = th_xstrdup(given);
            th_strv_add(&b->used_args, name);
        } else if (eq) {
            TH_TRY(b_expand(b, st, eq + 1, &value, err));
        } else if (global) {
            value = th_xstrdup(global);
        }
        if (value) {
            bvars_set(&st->args, name, value);
        }
        th_autofree char *by = value ? th_xasprintf("ARG %s=%s", name, value)
                                     : th_xasprintf("ARG %s", name);
        b_history(st, by, true);
    }
    return 0;
}

static int expose(struct build *b, struct bstage *st, const struct th_df_inst *in,
                  struct th_err *err)
{
    th_autostrv struct th_strv words = TH_STRV_INIT;
    for (size_t i = 0; i < in->args.n; i++) {
        TH_TRY(b_expand_words(b, st, in->args.v[i], &words, err));
    }
    struct th_json *ports = th_json_path_object(b_config(st), "ExposedPorts");
    for (size_t i = 0; i < words.n; i++) {
        char *end = NULL;
        const char *w = words.v[i];
        long from = strtol(w, &end, 10), to = from;
        if (*end == '-') {
            to = strtol(end + 1, &end, 10);
        }
        const char *proto = *end == '/' ? end + 1 : "tcp";
        bool known = strcasecmp(proto, "tcp") == 0 || strcasecmp(proto, "udp") == 0 ||
                     strcasecmp(proto, "sctp") == 0;
        if (!isdigit((unsigned char)*w) || (*end && *end != '/') || !known || from < 1 ||
            to > 65535 || to < from) {
            return b_fault(b, TH_R_DOCKERFILE, err, "Invalid containerPort: %.100s", w);
        }
        for (long p = from; p <= to; p++) {
            th_autofree char *key = th_xasprintf("%ld/%s", p, proto);
            th_json_set(ports, key, th_json_object());
        }
    }
    b_history(st, in->original, true);
    return 0;
}

static int volume(struct build *b, struct bstage *st, const struct th_df_inst *in,
                  struct th_err *err)
{
    for (size_t i = 0; i < in->args.n; i++) {
        th_autofree char *v = NULL;
        TH_TRY(b_expand(b, st, in->args.v[i], &v, err));
        if (!*v) {
            return b_fault(b, TH_R_DOCKERFILE, err,
                           "VOLUME specified can not be an empty string");
        }
        th_json_set(th_json_path_object(b_config(st), "Volumes"), v, th_json_object());
    }
    b_history(st, in->original, true);
    return 0;
}

static int make_dir(struct bstage *st, const char *root, const char *path, struct th_err *err)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autobuf struct th_buf at = TH_BUF_INIT;
    (void)st;
    th_strv_split(&parts, path + 1, '/');
    for (size_t i = 0; i < parts.n && *parts.v[i]; i++) {
        th_autoclose int parent = b_open_in(root, th_buf_cstr(&at), O_RDONLY | O_DIRECTORY);
        th_buf_printf(&at, "/%s", parts.v[i]);
        th_autoclose int have = b_open_in(root, th_buf_cstr(&at), O_PATH | O_DIRECTORY);
        if (have < 0 && (parent < 0 || mkdirat(parent, parts.v[i], 0755) < 0)) {
            return th_fail_errno(err, errno, TH_R_BUILD_FAILED, "WORKDIR %s", path);
        }
    }
    return 0;
}

static int workdir(struct build *b, struct bstage *st, const struct th_df_inst *in,
                   struct th_err *err)
{
    th_autofree char *word = NULL;
    TH_TRY(b_expand(b, st, in->args.v[0], &word, err));
    if (!*word) {
        return b_fault(b, TH_R_DOCKERFILE, err, "WORKDIR requires exactly one argument");
    }
    th_autofree char *path = b_abs(st, word);
    th_json_set_str(b_config(st), "WorkingDir", path);
    size_t before = st->n_layers;
    char key[TH_SHA256_HEX_LEN];
    struct th_sha256 *h = b_key_begin(st, "WORKDIR");
    b_key_add(h, "path", path);
    b_key_end(h, key);
    if (!th_streq(path, "/") && !b_cache_hit(b, st, key, err)) {
        struct broot r = {0};
        TH_TRY(b_root_open(b, st->layers, st->n_layers, true, &r, err));
        int rc = make_dir(st, r.root, path, err);
        rc = rc < 0 ? rc : b_commit(b, st, &r, key, err);
        b_root_close(&r);
        TH_TRY(rc);
    }
    th_autofree char *by = th_xasprintf("WORKDIR %s", path);
    b_history(st, by, st->n_layers == before);
    return 0;
}

static int health(struct build *b, struct bstage *st, const struct th_df_inst *in,
                  struct th_err *err)
{
    static const struct {
        const char *flag, *field;
    } times[] = {{"interval", "Interval"}, {"timeout", "Timeout"},
                 {"start-period", "StartPeriod"}, {"start-interval", "StartInterval"}};
    struct th_json *hc = th_json_object();
    th_json_set(b_config(st), "Healthcheck", hc);
    struct th_json *test = th_json_path_array(hc, "Test");
    if (th_streq(in->args.v[0], "NONE")) {
        th_json_append_str(test, "NONE");
    } else {
        th_json_append_str(test, in->json ? "CMD" : "CMD-SHELL");
        for (size_t i = 1; i < in->args.n; i++) {
            th_json_append_str(test, in->args.v[i]);
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(times); i++) {
        const char *v = th_df_flag(in, times[i].flag);
        int64_t us = 0;
        if (v && (th_duration_parse(v, &us, NULL) < 0 || us < 0)) {
            return b_fault(b, TH_R_DOCKERFILE, err, "invalid duration \"%.50s\" of --%s", v,
                           times[i].flag);
        }
        if (v) {
            th_json_set_int(hc, times[i].field, us * 1000);
        }
    }
    const char *retries = th_df_flag(in, "retries");
    if (retries) {
        th_json_set_int(hc, "Retries", strtol(retries, NULL, 10));
    }
    b_history(st, in->original, true);
    return 0;
}

static int one_word(struct build *b, struct bstage *st, const struct th_df_inst *in,
                    const char *field, struct th_err *err)
{
    th_autofree char *v = NULL;
    TH_TRY(b_expand(b, st, in->args.v[0], &v, err));
    th_json_set_str(b_config(st), field, v);
    th_autofree char *by = th_xasprintf("%s %s", th_df_op_name(in->op), v);
    b_history(st, by, true);
    return 0;
}

int b_instruction(struct build *b, struct bstage *st, const struct th_df_inst *in,
                  struct th_err *err)
{
    struct th_json *config = b_config(st);
    const struct th_json *shell = th_json_get(config, "Shell");
    b->in = in;
    switch (in->op) {
    case TH_DF_RUN:
        return b_run(b, st, in, err);
    case TH_DF_COPY:
    case TH_DF_ADD:
        return b_copy(b, st, in, err);
    case TH_DF_WORKDIR:
        return workdir(b, st, in, err);
    case TH_DF_ENV:
    case TH_DF_LABEL:
        return pairs(b, st, in, err);
    case TH_DF_ARG:
        return arg(b, st, in, err);
    case TH_DF_EXPOSE:
        return expose(b, st, in, err);
    case TH_DF_VOLUME:
        return volume(b, st, in, err);
    case TH_DF_HEALTHCHECK:
        return health(b, st, in, err);
    case TH_DF_USER:
        return one_word(b, st, in, "User", err);
    case TH_DF_STOPSIGNAL:
        return one_word(b, st, in, "StopSignal", err);
    case TH_DF_CMD:
        set_array(config, "Cmd", in, 0, shell);
        st->cmd_set = true;
        break;
    case TH_DF_ENTRYPOINT:
        set_array(config, "Entrypoint", in, 0, shell);
        if (!st->cmd_set) { /* an inherited CMD was meant for the inherited ENTRYPOINT */
            (void)th_json_del(config, "Cmd");
        }
        break;
    case TH_DF_SHELL:
        set_array(config, "Shell", in, 0, NULL);
        break;
    case TH_DF_MAINTAINER:
        th_json_set_str(st->doc, "author", in->args.v[0]);
        break;
    case TH_DF_ONBUILD: {
        const char *trigger = in->original + strcspn(in->original, " \t");
        trigger += strspn(trigger, " \t");
        th_json_append_str(th_json_path_array(config, "OnBuild"), trigger);
        break;
    }
    case TH_DF_FROM:
    case TH_DF_COUNT_:
        return th_fail(err, TH_R_INTERNAL, "FROM inside a stage");
    }
    b_history(st, in->original, true);
    return 0;
}
