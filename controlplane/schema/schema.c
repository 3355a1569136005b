/* Looking things up in the built-in tables.
 *
 * gen_tables.py writes kinds sorted by (group, version, kind) and types sorted by name, so both are
 * binary searches over constant memory: no start-up work, no locks. A type's own fields are searched
 * through by_name; custom resources' types, built at run time, have the same index.
 *
 * Upstream compiles one Go struct per type and finds them through a Scheme of reflection types; here
 * a type is data, and everything that needs it reads the same rows. */
#include "controlplane/schema/schema.h"
#include "controlplane/schema/schema_priv.h"

static int kind_cmp(const struct th_kind *k, const char *group, const char *version,
                    const char *kind)
{
    int c = strcmp(k->group, group);
    if (c == 0) {
        c = strcmp(k->version, version);
    }
    return c ? c : strcmp(k->kind, kind);
}

const struct th_kind *th_kind_find(const char *group, const char *version, const char *kind)
{
    if (!group || !version || !kind) {
        return NULL;
    }
    size_t lo = 0, hi = th_builtin_kinds_n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = kind_cmp(&th_builtin_kinds[mid], group, version, kind);
        if (c == 0) {
            return &th_builtin_kinds[mid];
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}

const struct th_kind *th_kind_at(size_t i)
{
    return i < th_builtin_kinds_n ? &th_builtin_kinds[i] : NULL;
}

const struct th_type *th_type_find(const char *name)
{
    if (!name) {
        return NULL;
    }
    size_t lo = 0, hi = th_builtin_types_n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(th_builtin_types[mid].name, name);
        if (c == 0) {
            return &th_builtin_types[mid];
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}

const struct th_type *th_type_at(size_t i)
{
    return i < th_builtin_types_n ? &th_builtin_types[i] : NULL;
}

const struct th_field *th_type_field(const struct th_type *t, const char *json_name)
{
    if (!t || !json_name) {
        return NULL;
    }
    size_t lo = 0, hi = t->n_fields;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(t->by_name[mid]->name, json_name);
        if (c == 0) {
            return t->by_name[mid];
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}

const struct th_field *th_type_path(const struct th_type *t, const char *path)
{
    const struct th_field *f = NULL;
    while (t && path && *path) {
        size_t n = strcspn(path, ".");
        char name[128];
        if (n == 0 || n >= sizeof(name)) {
            return NULL;
        }
        memcpy(name, path, n);
        name[n] = '\0';
        f = th_type_field(t, name);
        if (!f) {
            return NULL;
        }
        path += n;
        if (*path == '.') {
            path++;
            t = f->type == TH_F_STRUCT ? f->sub : NULL;
            if (!t || *path == '\0') {
                return NULL;
            }
        }
    }
    return f;
}

char *th_type_openapi_name(const struct th_type *t)
{
    static const struct {
        const char *prefix, *package;
    } homes[] = {
        {"meta.", "io.k8s.apimachinery.pkg.apis.meta.v1."},
        {"apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."},
        {"apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."},
        {"metrics.", "io.k8s.metrics.pkg.apis.metrics."},
    };
    if (t->flags & TH_TF_CUSTOM) {
        return th_xstrdup(t->name);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(homes); i++) {
        if (th_startswith(t->name, homes[i].prefix)) {
            return th_xasprintf("%s%s", homes[i].package, t->name + strlen(homes[i].prefix));
        }
    }
    return th_xasprintf("io.k8s.api.%s", t->name);
}

int th_gv_split(const char *api_version, char **ret_group, char **ret_version, struct th_err *err)
{
    const char *slash = api_version ? strchr(api_version, '/') : NULL;
    if (!api_version || (slash && strchr(slash + 1, '/'))) {
        return th_fail(err, TH_R_BAD_REQUEST, "unexpected GroupVersion string: %s",
                       api_version ? api_version : "");
    }
    if (slash) {
        *ret_group = th_xstrndup(api_version, (size_t)(slash - api_version));
        *ret_version = th_xstrdup(slash + 1);
    } else {
        *ret_group = th_xstrdup("");
        *ret_version = th_xstrdup(api_version);
    }
    return 0;
}
