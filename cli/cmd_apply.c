/*
 * thimble apply: plain server-side apply, for machines without kubectl. Every document of the files
 * is sent as an apply patch with field manager "thimble"; discovery says which resource a kind is.
 * Documents are applied in their order, and one that fails does not keep the others from being
 * tried: what failed is reported at the end, as kubectl does. All files are read and looked through
 * before the first object is sent. Unknown and duplicate fields are errors, as with
 * kubectl apply --server-side.
 */
#include "cli/cluster.h"
#include "cli/output.h"
#include "base/io.h"
#include "base/json/yaml.h"
#include "base/limits.h"
#include <stdio.h>

struct mapping {
    char *plural;
    bool namespaced;
};

/* Finds the resource of a kind in the group version's discovery document. */
static int map_kind(struct th_client *client, const char *api_version, const char *kind,
                    struct mapping *ret, struct th_err *err)
{
    th_autofree char *path =
        th_xasprintf("/%s/%s", strchr(api_version, '/') ? "apis" : "api", api_version);
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_json *list TH_AUTO(th_json) = NULL;
    struct th_raw_req req = {.method = "GET", .path = path, .accept = "application/json"};
    int r = th_client_raw(client, &req, NULL, &body, err);
    if (r < 0 && r != -TH_R_NOT_FOUND) {
        return r;
    }
    if (r == 0) {
        TH_TRY(th_json_parse(th_buf_cstr(&body), body.n, NULL, &list, err));
    }
    const struct th_json *resources = th_json_get(list, "resources");
    for (size_t i = 0; i < th_json_len(resources); i++) {
        const struct th_json *res = th_json_at(resources, i);
        const char *name = th_json_path_str(res, "name");
        if (name && !strchr(name, '/') && th_streq(th_json_path_str(res, "kind"), kind)) {
            ret->plural = th_xstrdup(name);
            ret->namespaced = th_json_path_bool(res, "namespaced", false);
            return 0;
        }
    }
    (void)th_fail(err, TH_R_NOT_FOUND, "no matches for kind \"%s\" in version \"%s\"", kind,
                  api_version);
    return th_hint(
        err, "check apiVersion and kind; a custom kind needs its CustomResourceDefinition first");
}

static int apply_one(const struct th_cli *cli, struct th_client *client, const struct th_json *doc,
                     struct th_json *results, struct th_err *err)
{
    const char *api_version = th_json_path_str(doc, "apiVersion");
    const char *kind = th_json_path_str(doc, "kind");
    const char *name = th_json_path_str(doc, "metadata.name");
    struct mapping m = {.plural = NULL};
    TH_TRY(map_kind(client, api_version, kind, &m, err));
    th_autofree char *plural = m.plural;
    const char *ns = th_json_path_str(doc, "metadata.namespace");
    if (!ns) {
        ns = th_opt_str(cli, "namespace");
    }
    const char *slash = strchr(api_version, '/');
    th_autofree char *group =
        slash ? th_xstrndup(api_version, (size_t)(slash - api_version)) : th_xstrdup("");
    struct th_gvr gvr = {group, slash ? slash + 1 : api_version, plural};
    struct th_patch_opts o = {.kind = TH_PATCH_APPLY,
                              .field_manager = "thimble",
                              .field_validation = "Strict",
                              .force = th_opt_bool(cli, "force"),
                              .dry_run = th_opt_bool(cli, "dry-run")};
    struct th_json *applied TH_AUTO(th_json) = NULL;
    int r = th_client_patch(client, gvr, m.namespaced ? ns : NULL, name, "", &o, doc, &applied, err);
    if (r == -TH_R_CONFLICT) {
        return th_hint(err, "--force takes the fields over from the other managers");
    }
    if (r < 0 && err->msg && strstr(err->msg, "failed to create typed patch object")) {
        /* What the manifest says is at fault; the API has no reason for that (it answers 500). */
        err->reason = TH_R_BAD_REQUEST;
        return -TH_R_BAD_REQUEST;
    }
    TH_TRY(r);
    if (!cli->json && !cli->quiet) {
        printf("%s%s%s/%s applied%s\n", plural, *group ? "." : "", group, name,
               o.dry_run ? " (dry run)" : "");
    }
    th_json_append(results, th_json_ref(applied));
    return 0;
}

/* What the server cannot be asked about: an object needs a name to be sent to. */
static int check_document(const struct th_json *doc, const char *path, size_t number,
                          struct th_err *err)
{
    static const char *const needed[] = {"apiVersion", "kind", "metadata.name"};
    if (!th_json_is(doc, TH_JSON_OBJECT)) {
        (void)th_fail(err, TH_R_PARSE, "%s: document %zu is not an object", path, number);
        return th_hint(err, "a document is a mapping that has apiVersion, kind and metadata");
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(needed); i++) {
        const char *v = th_json_path_str(doc, needed[i]);
        if (!v || !*v) {
            (void)th_fail(err, TH_R_PARSE, "%s: document %zu has no %s", path, number, needed[i]);
            return th_hint(err, i == 2 && th_json_path_str(doc, "metadata.generateName")
                                    ? "generateName cannot be applied: use \"kubectl create\""
                                    : "an object needs apiVersion, kind and metadata.name");
        }
    }
    return 0;
}

static int add_document(struct th_json *doc, const char *path, size_t number,
                        struct th_json *docs, struct th_err *err)
{
    struct th_json *items = th_json_get(doc, "items");
    if (th_streq(th_json_path_str(doc, "kind"), "List") && th_json_is(items, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(items); i++) {
            TH_TRY(add_document(th_json_at(items, i), path, number, docs, err));
        }
        return 0;
    }
    TH_TRY(check_document(doc, path, number, err));
    th_json_append(docs, th_json_ref(doc));
    return 0;
}

static int read_documents(const char *path, struct th_json *docs, struct th_err *err)
{
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_json *parsed TH_AUTO(th_json) = NULL;
    TH_TRY(th_streq(path, "-") ? th_io_read_fd(0, TH_LIMIT_CONFIG_FILE_B, &text, err)
                               : th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, err));
    if (th_yaml_parse(th_buf_cstr(&text), text.n, &parsed, err) < 0) {
        (void)th_wrap(err, "%s", path);
        return th_hint(err, "correct the file there; nothing was applied");
    }
    for (size_t i = 0; i < th_json_len(parsed); i++) {
        if (!th_json_is(th_json_at(parsed, i), TH_JSON_NULL)) {
            TH_TRY(add_document(th_json_at(parsed, i), path, i + 1, docs, err));
        }
    }
    return 0;
}

static int read_path(const char *path, struct th_json *docs, struct th_err *err)
{
    if (!th_io_is_dir(path)) {
        return read_documents(path, docs, err);
    }
    struct th_strv names TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    TH_TRY(th_io_list(path, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        if (th_endswith(names.v[i], ".yaml") || th_endswith(names.v[i], ".yml") ||
            th_endswith(names.v[i], ".json")) {
            th_autofree char *file = th_path_join(path, names.v[i]);
            TH_TRY(read_documents(file, docs, err));
        }
    }
    return 0;
}

static int run(struct th_cli *cli, struct th_err *err)
{
    const char *paths[64];
    size_t n = th_opt_all(cli, "filename", paths, TH_ARRAY_LEN(paths));
    if (n == 0) {
        (void)th_fail(err, TH_R_USAGE, "nothing to apply");
        return th_hint(err, "give -f FILE; \"-\" reads standard input");
    }
    struct th_json *docs TH_AUTO(th_json) = th_json_array();
    for (size_t i = 0; i < n; i++) {
        TH_TRY(read_path(paths[i], docs, err));
    }
    if (th_json_len(docs) == 0) {
        (void)th_fail(err, TH_R_PARSE, "%s holds no objects", paths[0]);
        return th_hint(err, "a document has apiVersion, kind and metadata.name");
    }
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    TH_TRY(th_cluster_open(cli, &c, err));
    struct th_json *results TH_AUTO(th_json) = th_json_array();
    int first = 0;
    for (size_t i = 0; i < th_json_len(docs); i++) {
        struct th_err one TH_CLEANUP(th_err_done) = TH_ERR_INIT;
        int r = apply_one(cli, c.client, th_json_at(docs, i), results, &one);
        if (r < 0 && first == 0) {
            first = r;
            th_err_move(err, &one);
        } else if (r < 0) {
            th_print_error(NULL, &one);
        }
    }
    if (cli->json && first == 0) {
        struct th_json *o TH_AUTO(th_json) =
            th_json_build("{'apiVersion':'v1','kind':'List','items':%o}", th_json_ref(results));
        th_print_json(o);
    }
    return first;
}

static const struct th_cmd_opt opts[] = {
    {.name = "filename",
     .short_name = 'f',
     .arg = "FILE",
     .repeat = true,
     .complete = "file",
     .help = "File or folder with YAML or JSON documents; \"-\" is standard input"},
    {.name = "namespace",
     .short_name = 'n',
     .arg = "NAME",
     .dflt = "default",
     .help = "Namespace of objects that name none"},
    {.name = "force", .help = "Take fields over from other managers"},
    {.name = "dry-run", .help = "Let the server check everything and change nothing"},
    {.name = NULL},
};
static const char *const examples[] = {"thimble apply -f k8s.yaml",
                                       "thimble apply -f deploy/ -n demo", NULL};
const struct th_cmd th_cmd_apply = {
    .name = "apply",
    .group = "Working with it",
    .summary = "Apply manifests (server-side apply), where there is no kubectl",
    .args = "",
    .examples = examples,
    .opts = opts,
    .run = run,
};
