/* The builder: from a Dockerfile to an image in the store.
 *
 * The stages form a graph (FROM another stage, COPY --from, RUN --mount=from); only those the
 * target needs are built, in the order of the file, which is a topological order because a stage
 * can only name earlier ones. Each stage carries an image config being made and a list of layers;
 * instructions (build_inst.c, build_run.c, build_copy.c) change them; the target's become a
 * manifest.
 *
 * One session of the content store spans the whole build, so that nothing is collected under it.
 * What a failed build leaves are layers held by the build cache: the next try starts there.
 *
 * Steps run one after another: on the small machines this is for, two at a time are not faster.
 */
#include "images/builder_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "images/content_priv.h"
#include "images/reference.h"

#include <ctype.h>
#include <strings.h>

const char *bvars_get(const struct bvars *v, const char *name, size_t n)
{
    for (size_t i = v->kv.n; i-- > 0;) {
        if (strncmp(v->kv.v[i], name, n) == 0 && v->kv.v[i][n] == '=') {
            return v->kv.v[i] + n + 1;
        }
    }
    return NULL;
}

void bvars_set(struct bvars *v, const char *name, const char *value)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < v->kv.n; i++) {
        if (strncmp(v->kv.v[i], name, n) == 0 && v->kv.v[i][n] == '=') {
            free(v->kv.v[i]);
            v->kv.v[i] = th_xasprintf("%s=%s", name, value);
            return;
        }
    }
    th_strv_addf(&v->kv, "%s=%s", name, value);
}

static int line_of(const struct build *b)
{
    return b->in ? b->in->line : b->st ? b->st->df->line : 1;
}

int b_fault(struct build *b, enum th_reason reason, struct th_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    return th_fail(err, reason, "%s:%d: %s", th_path_base(b->file), line_of(b), msg);
}

bool b_canceled(const struct build *b)
{
    return b->o->cancel && atomic_load(b->o->cancel);
}

void b_event(struct build *b, enum th_build_event_kind kind, const char *text)
{
    if (b->o->event) {
        struct th_build_event e = {.kind = kind,
                                   .step = b->step,
                                   .total = b->total,
                                   .stage = b->st ? b->st->label : "",
                                   .text = text,
                                   .cached = kind == TH_BUILD_DONE && b->was_cached,
                                   .ms = kind == TH_BUILD_DONE ? th_mono_ms() - b->t0 : 0};
        b->o->event(b->o->event_arg, &e);
    }
}

static void step_begin(struct build *b, const char *text)
{
    b->step++;
    b->text = text;
    b->t0 = th_mono_ms();
    b->was_cached = false;
    b_event(b, TH_BUILD_START, text);
}

static void step_end(struct build *b)
{
    b_event(b, TH_BUILD_DONE, b->text);
}

/* ---- planning ---- */

int b_find_stage(const struct build *b, const char *name, int before)
{
    char *end = NULL;
    long i = strtol(name, &end, 10);
    if (*name && !*end && i >= 0 && i < before) {
        return (int)i;
    }
    for (int k = before; k-- > 0;) {
        const char *have = b->stages[k].df->name;
        if (have && strcasecmp(have, name) == 0) {
            return k;
        }
    }
    return -1;
}

static void platform_vars(struct build *b)
{
    const char *names[] = {"TARGET", "BUILD"};
    for (size_t i = 0; i < 2; i++) {
        const char *arch = i == 0 ? b->arch : th_host_architecture();
        const struct {
            const char *suffix;
            char *value;
        } vars[] = {{"PLATFORM", th_xasprintf("linux/%s", arch)},
                    {"OS", th_xstrdup("linux")},
                    {"ARCH", th_xstrdup(arch)},
                    {"VARIANT", th_xstrdup("")}};
        for (size_t k = 0; k < TH_ARRAY_LEN(vars); k++) {
            th_autofree char *name = th_xasprintf("%s%s", names[i], vars[k].suffix);
            bvars_set(&b->globals, name, vars[k].value);
            free(vars[k].value);
        }
    }
}

static int global_args(struct build *b, struct th_err *err)
{
    platform_vars(b);
    for (size_t i = 0; i < b->df->n_global_args; i++) {
        const struct th_df_inst *in = b->df->global_args[i];
        b->in = in;
        for (size_t k = 0; k < in->args.n; k++) {
            const char *eq = strchr(in->args.v[k], '=');
            th_autofree char *name = th_xstrndup(
                in->args.v[k], eq ? (size_t)(eq - in->args.v[k]) : strlen(in->args.v[k]));
            th_autofree char *value = NULL;
            size_t n = strlen(name);
            for (const char *const *a = b->o->build_args; a && *a; a++) {
                if (strncmp(*a, name, n) == 0 && (*a)[n] == '=') {
                    free(value);
                    value = th_xstrdup(*a + n + 1);
                    th_strv_add(&b->used_args, name);
                }
            }
            if (!value && eq) {
                TH_TRY(b_expand(b, NULL, eq + 1, &value, err));
            }
            if (value) {
                bvars_set(&b->globals, name, value);
            }
        }
    }
    b->in = NULL;
    return 0;
}

static int resolve_bases(struct build *b, struct th_err *err)
{
    for (size_t i = 0; i < b->df->n_stages; i++) {
        struct bstage *st = &b->stages[i];
        st->df = b->df->stages[i];
        b->st = st;
        st->label =
            st->df->name ? th_xstrdup(st->df->name) : th_xasprintf("stage-%zu", i);
        TH_TRY(b_expand(b, NULL, st->df->base, &st->base, err));
        if (!*st->base) {
            return b_fault(b, TH_R_DOCKERFILE, err, "base name (%s) should not be blank",
                           st->df->base);
        }
        /* a number is an image name here, unlike in COPY --from */
        st->base_stage = isdigit((unsigned char)*st->base) ? -1
                                                           : b_find_stage(b, st->base, (int)i);
    }
    b->st = NULL;
    return 0;
}

static const char *mount_from(const char *value, char **keep)
{
    const char *p = strstr(value, "from=");
    if (!p) {
        return NULL;
    }
    *keep = th_xstrndup(p + 5, strcspn(p + 5, ","));
    return *keep;
}

static void need(struct build *b, int i)
{
    struct bstage *st = &b->stages[i];
    if (st->needed) {
        return;
    }
    st->needed = true;
    b->total += 1 + (int)st->df->n_insts;
    if (st->base_stage >= 0) {
        need(b, st->base_stage);
    }
    for (size_t k = 0; k < st->df->n_insts; k++) {
        const struct th_df_inst *in = st->df->insts[k];
        for (size_t f = 0; f < in->n_flags; f++) {
            th_autofree char *keep = NULL;
            const char *from = th_streq(in->flags[f].name, "from") ? in->flags[f].value
                               : th_streq(in->flags[f].name, "mount")
                                   ? mount_from(in->flags[f].value, &keep)
                                   : NULL;
            int dep = from ? b_find_stage(b, from, i) : -1;
            if (dep >= 0) {
                need(b, dep);
            }
        }
    }
}

static int plan(struct build *b, int *ret_target, struct th_err *err)
{
    b->stages = th_xcalloc(b->df->n_stages, sizeof(*b->stages));
    TH_TRY(global_args(b, err));
    TH_TRY(resolve_bases(b, err));
    int target = (int)b->df->n_stages - 1;
    if (b->o->target && *b->o->target) {
        target = b_find_stage(b, b->o->target, (int)b->df->n_stages);
        if (target < 0) {
            (void)th_fail(err, TH_R_DOCKERFILE, "target stage \"%s\" could not be found",
                          b->o->target);
            return th_hint(err, "--target takes a name given with FROM ... AS NAME");
        }
    }
    need(b, target);
    *ret_target = target;
    return 0;
}

/* ---- stages ---- */

int b_base_image(struct build *b, const char *ref, struct th_image **ret, struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    int r = th_images_resolve(b->s, ref, ret, &why);
    if (r == -TH_R_NO_IMAGE && b->o->missing_base) {
        if (b->o->missing_base(b->o->missing_base_arg, ref, err) < 0) {
            return th_wrap(err, "%s:%d", th_path_base(b->file), line_of(b));
        }
        th_err_done(&why);
        r = th_images_resolve(b->s, ref, ret, &why);
    }
    if (r == -TH_R_NO_IMAGE) {
        (void)b_fault(b, TH_R_NO_IMAGE, err, "base image %s is not in the image store", ref);
        const char *last = strrchr(ref, '/');
        last = last ? last + 1 : ref;
        if (strncmp(last, "golang", 6) == 0) {
            return th_hint(err, "thimble image base %s makes a stand-in from this machine's Go; "
                                "or bring the real one with thimble image load FILE", ref);
        }
        return th_hint(err, "bring it with thimble image load FILE (made by docker save) or, with "
                            "a network, thimble image pull %s", ref);
    }
    if (r < 0) {
        th_err_move(err ? err : &why, &why);
        return r;
    }
    return th_images_unpack(b->s, *ret, err);
}

static struct th_json *empty_doc(const struct build *b)
{
    return th_json_build("{'architecture':%s,'os':'linux','config':{},'rootfs':{'type':'layers',"
                         "'diff_ids':[]},'history':[]}", b->arch);
}

static void copy_layers(struct bstage *st, const struct blayer *l, size_t n)
{
    st->layers = th_xcalloc(n + 1, sizeof(*l));
    if (n) {
        memcpy(st->layers, l, n * sizeof(*l));
    }
    st->n_layers = n;
}

static int from_image(struct build *b, struct bstage *st, struct th_err *err)
{
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(b_base_image(b, st->base, &img, err));
    TH_TRY(th_json_parse_cstr(img->config_json, &st->doc, err));
    if (*img->architecture && !th_streq(img->architecture, b->arch)) {
        th_autofree char *note =
            th_xasprintf("base image %s is for %s, not for %s", st->base, img->architecture,
                         b->arch);
        b_event(b, TH_BUILD_NOTE, note);
    }
    st->layers = th_xcalloc(img->n_layers + 1, sizeof(*st->layers));
    st->n_layers = img->n_layers;
    for (size_t i = 0; i < img->n_layers; i++) {
        struct blayer *l = &st->layers[i];
        (void)snprintf(l->diff_id, sizeof(l->diff_id), "%s", img->layers[i].diff_id);
        (void)snprintf(l->digest, sizeof(l->digest), "%s", img->layers[i].digest);
        (void)snprintf(l->media_type, sizeof(l->media_type), "%s", img->layers[i].media_type);
        l->size = img->layers[i].size;
    }
    return 0;
}

/* Triggers of the base image, run as if they stood after FROM. */
static int onbuild(struct build *b, struct bstage *st, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *triggers =
        th_json_ref(th_json_get(b_config(st), "OnBuild"));
    (void)th_json_del(b_config(st), "OnBuild");
    b->total += (int)th_json_len(triggers);
    for (size_t i = 0; i < th_json_len(triggers); i++) {
        const char *text = th_json_str(th_json_at(triggers, i));
        struct th_df_inst *in = NULL;
        TH_TRY(th_df_parse_inst(b->file, st->df->line, text ? text : "", b->df->escape, &in, err));
        step_begin(b, in->original);
        int r = b_instruction(b, st, in, err);
        b->in = NULL;
        step_end(b);
        th_df_inst_free(in);
        TH_TRY(r);
    }
    return 0;
}

static int begin_stage(struct build *b, struct bstage *st, struct th_err *err)
{
    step_begin(b, st->df->original);
    if (st->base_stage >= 0) {
        struct bstage *base = &b->stages[st->base_stage];
        st->doc = th_json_dup(base->doc);
        copy_layers(st, base->layers, base->n_layers);
    } else if (th_streq(st->base, "scratch")) {
        st->doc = empty_doc(b);
    } else {
        TH_TRY(from_image(b, st, err));
    }
    step_end(b);
    return onbuild(b, st, err);
}

static int build_stage(struct build *b, struct bstage *st, struct th_err *err)
{
    b->st = st;
    b->in = NULL;
    TH_TRY(begin_stage(b, st, err));
    for (size_t i = 0; i < st->df->n_insts; i++) {
        if (b_canceled(b)) {
            return th_fail(err, TH_R_CANCELED, "build canceled");
        }
        const struct th_df_inst *in = st->df->insts[i];
        step_begin(b, in->original);
        TH_TRY(b_instruction(b, st, in, err));
        step_end(b);
        b->in = NULL;
    }
    st->done = true;
    return 0;
}

/* ---- the result ---- */

static int write_image(struct build *b, struct bstage *st, struct th_build_result *ret,
                       struct th_err *err)
{
    char t[TH_TIME_LEN];
    th_json_set_str(st->doc, "created", th_time_format(th_now_ms(), t));
    th_json_set_str(st->doc, "architecture", b->arch);
    th_json_set_str(st->doc, "os", "linux");
    for (const char *const *l = b->o->labels; l && *l; l++) {
        const char *eq = strchr(*l, '=');
        th_autofree char *name = th_xstrndup(*l, eq ? (size_t)(eq - *l) : strlen(*l));
        th_json_set_str(th_json_path_object(b_config(st), "Labels"), name, eq ? eq + 1 : "");
    }
    th_autobuf struct th_buf config = TH_BUF_INIT, manifest = TH_BUF_INIT;
    char digest[TH_DIGEST_LEN];
    th_json_dump(st->doc, &config);
    TH_TRY(th_images_put_bytes(b->ss, config.p, config.n, digest, err));
    TH_AUTO(th_json) struct th_json *m = th_json_build(
        "{'schemaVersion':2,'mediaType':%s,'config':{'mediaType':%s,'digest':%s,'size':%d},"
        "'layers':[]}",
        TH_MT_OCI_MANIFEST, TH_MT_OCI_CONFIG, digest, (int64_t)config.n);
    ret->size = (int64_t)config.n;
    for (size_t i = 0; i < st->n_layers; i++) {
        const struct blayer *l = &st->layers[i];
        th_json_append(th_json_get(m, "layers"),
                       th_json_build("{'mediaType':%s,'digest':%s,'size':%d}", l->media_type,
                                     l->digest, l->size));
        ret->size += l->size;
    }
    th_json_dump(m, &manifest);
    TH_TRY(th_images_put_bytes(b->ss, manifest.p, manifest.n, ret->manifest_digest, err));
    ret->size += (int64_t)manifest.n;
    const char *const *tags = b->o->tags;
    if (!tags || !*tags) {
        return th_images_add(b->ss, ret->manifest_digest, NULL, ret->id, err);
    }
    for (; *tags; tags++) {
        th_autofree char *name = NULL;
        TH_TRY(th_ref_normalize(*tags, &name, err));
        TH_TRY(th_images_add(b->ss, ret->manifest_digest, name, ret->id, err));
    }
    return 0;
}

static void warn_unused(struct build *b)
{
    for (const char *const *a = b->o->build_args; a && *a; a++) {
        th_autofree char *name = th_xstrndup(*a, strcspn(*a, "="));
        if (!th_strv_has(&b->used_args, name) && !strstr(name, "PROXY") &&
            !strstr(name, "proxy")) {
            th_autofree char *note =
                th_xasprintf("[Warning] One or more build-args [%s] were not consumed", name);
            b_event(b, TH_BUILD_NOTE, note);
        }
    }
}

static int read_text(struct build *b, struct th_buf *text, struct th_err *err)
{
    if (b->o->dockerfile_text) {
        th_buf_puts(text, b->o->dockerfile_text);
        return 0;
    }
    th_autofree char *path = NULL;
    int r = b->context ? b_resolve_in(b->context, b->file, &path, NULL) : -TH_R_NOT_FOUND;
    if (r < 0) {
        (void)th_fail(err, TH_R_DOCKERFILE, "failed to read dockerfile: %s: no such file",
                      b->file);
        return th_hint(err, "the build folder must hold a Dockerfile, or name one with -f; "
                            "thimble image build --go PACKAGE needs none");
    }
    return th_io_read_file(path, TH_LIMIT_DOCKERFILE_B, text, err);
}

static int read_ignore(struct build *b, struct th_err *err)
{
    th_autofree char *own = th_xasprintf("%s.dockerignore", b->file);
    const char *const names[] = {own, ".dockerignore"};
    th_autobuf struct th_buf text = TH_BUF_INIT;
    for (size_t i = 0; b->context && i < 2; i++) {
        th_autofree char *path = NULL;
        if (b_resolve_in(b->context, names[i], &path, NULL) >= 0) {
            TH_TRY(th_io_read_file(path, TH_LIMIT_DOCKERFILE_B, &text, err));
            break;
        }
    }
    return th_ignore_parse(th_buf_cstr(&text), text.n, &b->ignore, err);
}

static int run_build(struct build *b, struct th_build_result *ret, struct th_err *err)
{
    th_autobuf struct th_buf text = TH_BUF_INIT;
    for (const char *const *t = b->o->tags; t && *t; t++) {
        th_autofree char *check = NULL;
        TH_TRY(th_ref_normalize(*t, &check, err));
    }
    TH_TRY(read_text(b, &text, err));
    TH_TRY(th_dockerfile_parse(th_path_base(b->file), th_buf_cstr(&text), text.n, &b->df, err));
    TH_TRY(read_ignore(b, err));
    int target = 0;
    TH_TRY(plan(b, &target, err));
    for (size_t i = 0; i < b->df->warnings.n; i++) {
        b_event(b, TH_BUILD_NOTE, b->df->warnings.v[i]);
    }
    if (!b->context) {
        th_autofree char *empty = th_images_session_file(b->ss, "context");
        TH_TRY(th_io_mkdir_p(empty, 0755, err));
        b->context = th_steal(&empty);
    }
    for (size_t i = 0; i <= (size_t)target; i++) {
        if (b->stages[i].needed) {
            TH_TRY(build_stage(b, &b->stages[i], err));
        }
    }
    TH_TRY(write_image(b, &b->stages[target], ret, err));
    warn_unused(b);
    ret->steps = b->step;
    ret->cached_steps = b->cached;
    return 0;
}

static void build_done(struct build *b)
{
    for (size_t i = 0; b->stages && i < b->df->n_stages; i++) {
        struct bstage *st = &b->stages[i];
        free(st->base);
        free(st->label);
        free(st->layers);
        th_json_unref(st->doc);
        th_strv_done(&st->args.kv);
    }
    free(b->stages);
    th_dockerfile_free(b->df);
    th_ignore_free(b->ignore);
    th_strv_done(&b->globals.kv);
    th_strv_done(&b->used_args);
}

static int build_in_session(struct th_images *s, struct th_images_session *ss,
                            const struct th_build_opts *opts, const char *context,
                            struct th_build_result *ret, struct th_err *err)
{
    struct build b = {.s = s, .ss = ss, .o = opts, .context = context};
    struct th_build_result res = {0};
    b.file = opts->dockerfile ? opts->dockerfile : "Dockerfile";
    b.arch = th_host_architecture();
    if (opts->platform && *opts->platform) {
        const char *slash = strchr(opts->platform, '/');
        b.arch = slash ? slash + 1 : opts->platform;
        if (slash && strncmp(opts->platform, "linux/", 6) != 0) {
            return th_fail(err, TH_R_UNSUPPORTED, "platform %s: only linux is supported",
                           opts->platform);
        }
    }
    int r = run_build(&b, &res, err);
    if (b.context && b.context != context) {
        free((char *)(uintptr_t)b.context);
    }
    build_done(&b);
    if (r >= 0) {
        *ret = res;
    }
    return r;
}

int th_build(struct th_images *s, const struct th_build_opts *opts, struct th_build_result *ret,
             struct th_err *err)
{
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    TH_TRY(th_images_session_begin(s, &ss, err));
    return build_in_session(s, ss, opts, opts->context_dir, ret, err);
}

int th_build_tar(struct th_images *s, struct th_reader context, const struct th_build_opts *opts,
                 struct th_build_result *ret, struct th_err *err)
{
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    TH_TRY(th_images_session_begin(s, &ss, err));
    th_autofree char *dir = th_images_session_file(ss, "context");
    TH_TRY(th_io_mkdir_p(dir, 0755, err));
    TH_AUTO(th_decomp) struct th_decomp *d = th_decomp_new(context);
    struct th_layer_apply_opts o = {.skip_devices = true};
    int r = th_layer_apply(th_decomp_reader(d), dir, &o, NULL, err);
    if (r < 0) {
        return th_wrap(err, "read the build context");
    }
    return build_in_session(s, ss, opts, dir, ret, err);
}
