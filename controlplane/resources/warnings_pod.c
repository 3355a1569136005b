/* Warnings about pods and templates of pods.
 *
 * They say what is accepted for old clients' sake and does not do what its author thinks: labels and
 * annotations that nobody reads any more, definitions that hide each other, amounts of half a byte.
 * Upstream gives the same texts in the same order (kubectl prints them as "Warning: ..."), so the order
 * of this file is the order of the checks. Overlapping ports and names are looked at across all
 * containers of the pod: init containers first, then containers, then ephemeral ones.
 */
#include "controlplane/resources/warnings.h"

#include "controlplane/schema/gotext.h"

static const char *const container_lists[] = {"spec.initContainers", "spec.containers",
                                              "spec.ephemeralContainers"};

/* ---- labels of nodes ---- */

const char *th_node_label_deprecated(const char *key)
{
    static const char *const list[][2] = {
        {"beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"},
        {"beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"},
        {"failure-domain.beta.kubernetes.io/region",
         "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"},
        {"failure-domain.beta.kubernetes.io/zone",
         "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"},
        {"beta.kubernetes.io/instance-type",
         "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"},
        {"app.kubernetes.io/created-by", "deprecated since v1.9"},
        {"scheduler.alpha.kubernetes.io/preferAvoidPods",
         "deprecated since v1.22; use Taints and Tolerations instead"},
        {"node-role.kubernetes.io/master",
         "use \"node-role.kubernetes.io/control-plane\" instead"},
    };
    for (size_t i = 0; key && i < TH_ARRAY_LEN(list); i++) {
        if (th_streq(list[i][0], key)) {
            return list[i][1];
        }
    }
    return NULL;
}

void th_warn_node_selector_term(const struct th_req_ctx *c, const struct th_view *term,
                                bool check_values)
{
    for (size_t i = 0; i < th_view_len(term, "matchExpressions"); i++) {
        struct th_view e = th_view_item(term, "matchExpressions", i);
        const char *why = th_node_label_deprecated(th_view_str(&e, "key"));
        if (why) {
            th_warn_at(c, &e, "key", "%s is %s", th_view_str(&e, "key"), why);
        }
        for (size_t k = 0; check_values && k < th_view_len(&e, "values"); k++) {
            struct th_view value = th_view_item(&e, "values", k);
            const char *msgs[TH_NAME_MSGS];
            size_t n = th_name_messages(TH_NAME_LABEL_VALUE, th_view_str(&value, NULL), msgs);
            for (size_t m = 0; m < n; m++) {
                th_warn_at(c, &value, NULL, "%s is invalid, %s", th_view_str(&value, NULL), msgs[m]);
            }
        }
    }
}

static void node_labels(const struct th_req_ctx *c, const struct th_view *v)
{
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, "spec.nodeSelector"));
    while (th_json_next(&it)) {
        const char *why = th_node_label_deprecated(it.name);
        if (why) {
            struct th_view at = th_view_key(v, "spec.nodeSelector", it.name);
            th_warn_at(c, &at, NULL, "%s", why);
        }
    }
    struct th_view n = th_view_at(v, "spec.affinity.nodeAffinity");
    static const char *const required =
        "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    static const char *const preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (size_t i = 0; i < th_view_len(&n, required); i++) {
        struct th_view term = th_view_item(&n, required, i);
        th_warn_node_selector_term(c, &term, false);
    }
    for (size_t i = 0; i < th_view_len(&n, preferred); i++) {
        struct th_view weighted = th_view_item(&n, preferred, i);
        struct th_view term = th_view_at(&weighted, "preference");
        th_warn_node_selector_term(c, &term, true);
    }
    for (size_t i = 0; i < th_view_len(v, "spec.topologySpreadConstraints"); i++) {
        struct th_view t = th_view_item(v, "spec.topologySpreadConstraints", i);
        const char *why = th_node_label_deprecated(th_view_str(&t, "topologyKey"));
        if (why) {
            th_warn_at(c, &t, "topologyKey", "%s is %s", th_view_str(&t, "topologyKey"), why);
        }
        if (!th_view_has(&t, "labelSelector")) {
            th_warn_at(c, &t, "labelSelector", "a null labelSelector results in matching no pod");
        }
    }
}

static void affinity(const struct th_req_ctx *c, const struct th_view *v, const char *member)
{
    struct th_view a = th_view_at(v, member);
    static const char *const required = "requiredDuringSchedulingIgnoredDuringExecution";
    static const char *const preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (size_t i = 0; i < th_view_len(&a, required); i++) {
        struct th_view t = th_view_item(&a, required, i);
        if (!th_view_has(&t, "labelSelector")) {
            th_warn_at(c, &t, "labelSelector", "a null labelSelector results in matching no pod");
        }
    }
    for (size_t i = 0; i < th_view_len(&a, preferred); i++) {
        struct th_view t = th_view_item(&a, preferred, i);
        if (!th_view_has(&t, "podAffinityTerm.labelSelector")) {
            th_warn_at(c, &t, "podAffinityTerm.labelSelector",
                       "a null labelSelector results in matching no pod");
        }
    }
}

/* ---- annotations that became fields ---- */

static const char *annotation(const struct th_view *v, const char *key)
{
    return th_json_str(th_json_get(th_view_get(v, "metadata.annotations"), key));
}

static void warn_annotation(const struct th_req_ctx *c, const struct th_view *v, const char *key,
                            const char *text)
{
    struct th_view at = th_view_key(v, "metadata.annotations", key);
    if (annotation(v, key)) {
        th_warn_at(c, &at, NULL, "%s", text);
    }
}

static void annotations(const struct th_req_ctx *c, const struct th_view *v)
{
    static const char *const list[][2] = {
        {"scheduler.alpha.kubernetes.io/critical-pod",
         "non-functional in v1.16+; use the \"priorityClassName\" field instead"},
        {"security.alpha.kubernetes.io/sysctls",
         "non-functional in v1.11+; use the \"sysctls\" field instead"},
        {"security.alpha.kubernetes.io/unsafe-sysctls",
         "non-functional in v1.11+; use the \"sysctls\" field instead"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(list); i++) {
        warn_annotation(c, v, list[i][0], list[i][1]);
    }
}

/* ---- volumes ---- */

struct placed { /* a path in a volume and where it comes from */
    const char *path, *source;
};

static size_t trimmed(const char *path)
{
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/') {
        n--;
    }
    return n;
}

/* True when one path is the other or a folder above it. */
static bool overlap(const char *a, const char *b)
{
    size_t an = trimmed(a);
    size_t bn = trimmed(b);
    size_t n = an < bn ? an : bn;
    if (an == 0 || bn == 0 || strncmp(a, b, n) != 0) {
        return false;
    }
    return an == bn || (an < bn ? b[n] : a[n]) == '/';
}

static void put_placed(struct th_buf *b, const struct placed *p)
{
    th_autofree char *path = th_xstrndup(p->path, trimmed(p->path));
    th_go_quote(b, path);
    if (*p->source) {
        th_buf_printf(b, " (%s)", p->source);
    }
}

struct volume_walk {
    const struct th_req_ctx *c;
    const char *name, *what; /* of the volume */
    struct placed *seen;
    size_t n, room;
};

static void place(struct volume_walk *w, const char *path, const char *source)
{
    struct placed p = {path, source};
    for (size_t i = 0; i < w->n; i++) {
        if (overlap(w->seen[i].path, path)) {
            th_autobuf struct th_buf b = TH_BUF_INIT;
            th_buf_puts(&b, "volume ");
            th_go_quote(&b, w->name);
            th_buf_printf(&b, " (%s): overlapping paths: ", w->what);
            put_placed(&b, &p);
            th_buf_puts(&b, " with ");
            put_placed(&b, &w->seen[i]);
            th_warn_at(w->c, NULL, NULL, "%s", th_buf_cstr(&b));
        }
    }
    if (w->n < w->room) {
        w->seen[w->n++] = p;
    }
}

static void place_items(struct volume_walk *w, const struct th_json *items, const char *source)
{
    for (size_t i = 0; i < th_json_len(items); i++) {
        const char *path = th_json_path_str(th_json_at(items, i), "path");
        place(w, path ? path : "", source);
    }
}

static char *quoted(const char *kind, const char *name)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_printf(&b, "%s ", kind);
    th_go_quote(&b, name ? name : "");
    return th_buf_steal(&b, NULL);
}

static const char *name_of(const struct th_json *o, const char *member, const char *other)
{
    const char *s = th_json_path_str(o, member);
    return s || !other ? s : th_json_path_str(o, other);
}

static void place_source(struct volume_walk *w, const struct th_json *s, struct th_strv *keep)
{
    static const struct {
        const char *member, *kind, *name, *other;
    } lists[] = {{"configMap", "ConfigMap", "name", NULL}, {"secret", "Secret", "name", NULL}};
    for (size_t i = 0; i < TH_ARRAY_LEN(lists); i++) {
        const struct th_json *o = th_json_get(s, lists[i].member);
        if (o) {
            th_strv_take(keep, quoted(lists[i].kind, name_of(o, lists[i].name, NULL)));
            place_items(w, th_json_get(o, "items"), keep->v[keep->n - 1]);
        }
    }
    place_items(w, th_json_path(s, "downwardAPI.items"), "DownwardAPI");
    const char *token = th_json_path_str(s, "serviceAccountToken.path");
    if (token) {
        place(w, token, "ServiceAccountToken");
    }
    const struct th_json *bundle = th_json_get(s, "clusterTrustBundle");
    if (bundle) {
        th_strv_take(keep, quoted("ClusterTrustBundle", name_of(bundle, "name", "signerName")));
        const char *path = th_json_path_str(bundle, "path");
        place(w, path ? path : "", keep->v[keep->n - 1]);
    }
    static const char *const made[][2] = {{"certificateChainPath", "PodCertificate chain"},
                                          {"keyPath", "PodCertificate key"},
                                          {"credentialBundlePath",
                                           "PodCertificate credential bundle"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(made); i++) {
        const char *path = th_json_str(th_json_get(th_json_get(s, "podCertificate"), made[i][0]));
        if (path && *path) {
            place(w, path, made[i][1]);
        }
    }
}

#define PLACED_MAX 256 /* paths of a volume that are compared: more are valid and not looked at */

static void overlapping_paths(const struct th_req_ctx *c, const struct th_view *volume)
{
    struct placed seen[PLACED_MAX];
    const struct th_json *o = volume->obj;
    static const struct {
        const char *member, *kind, *name;
    } lists[] = {{"configMap", "ConfigMap", "name"}, {"secret", "Secret", "secretName"}};
    struct volume_walk w = {c, th_view_str(volume, "name"), NULL, seen, 0, PLACED_MAX};
    for (size_t i = 0; i < TH_ARRAY_LEN(lists); i++) {
        const struct th_json *source = th_json_get(o, lists[i].member);
        if (source) {
            th_autofree char *what =
                quoted(lists[i].kind, th_json_str(th_json_get(source, lists[i].name)));
            w.what = what;
            w.n = 0;
            place_items(&w, th_json_get(source, "items"), "");
        }
    }
    w.what = "DownwardAPI";
    w.n = 0;
    place_items(&w, th_json_path(o, "downwardAPI.items"), "");
    const struct th_json *sources = th_json_path(o, "projected.sources");
    th_autostrv struct th_strv keep = TH_STRV_INIT;
    w.what = "Projected";
    w.n = 0;
    for (size_t i = 0; i < th_json_len(sources); i++) {
        const struct th_json *s = th_json_at(sources, i);
        if (th_json_len(s) == 0) {
            th_autobuf struct th_buf b = TH_BUF_INIT;
            th_go_quote(&b, w.name);
            th_warn_at(c, NULL, NULL, "volume %s (Projected) has no sources provided",
                       th_buf_cstr(&b));
            continue;
        }
        place_source(&w, s, &keep);
    }
}

static void volumes(const struct th_req_ctx *c, const struct th_view *v)
{
    static const char *const gone[][2] = {
        {"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
        {"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"},
        {"scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
        {"flocker", "deprecated in v1.22, non-functional in v1.25+"},
        {"storageos", "deprecated in v1.22, non-functional in v1.25+"},
        {"quobyte", "deprecated in v1.22, non-functional in v1.25+"},
        {"glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
        {"cephfs", "deprecated in v1.28, non-functional in v1.31+"},
        {"rbd", "deprecated in v1.28, non-functional in v1.31+"},
    };
    size_t n = th_view_len(v, "spec.volumes");
    for (size_t i = 0; i < n; i++) {
        struct th_view volume = th_view_item(v, "spec.volumes", i);
        for (size_t k = 0; k < TH_ARRAY_LEN(gone); k++) {
            if (th_view_has(&volume, gone[k][0])) {
                bool storage_os = th_streq(gone[k][0], "storageos");
                th_warn_at(c, &volume, storage_os ? "storageOS" : gone[k][0], "%s", gone[k][1]);
            }
        }
        if (th_view_has(&volume, "ephemeral.volumeClaimTemplate")) {
            struct th_view spec = th_view_at(&volume, "ephemeral.volumeClaimTemplate.spec");
            th_warn_claim_spec(c, &spec);
        }
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view volume = th_view_item(v, "spec.volumes", i);
        overlapping_paths(c, &volume);
    }
}

/* ---- containers ---- */

/* A variable that is defined again, unless the new value is made from the old one. */
static void hidden_env(const struct th_req_ctx *c, const struct th_view *container)
{
    size_t n = th_view_len(container, "env");
    for (size_t i = 1; i < n; i++) {
        struct th_view e = th_view_item(container, "env", i);
        const char *name = th_view_str(&e, "name");
        bool again = false;
        for (size_t k = 0; k < i && !again; k++) {
            struct th_view before = th_view_item(container, "env", k);
            again = th_view_is(&before, "name", name);
        }
        th_autofree char *ref = th_xasprintf("$(%s)", name);
        const char *value = th_view_str(&e, "value");
        if (again && (th_view_has(&e, "valueFrom") || th_streq(value, ref) || !strstr(value, ref))) {
            th_autobuf struct th_buf q = TH_BUF_INIT;
            th_go_quote(&q, name);
            th_warn_at(c, &e, NULL,
                       "hides previous definition of %s, which may be dropped when using apply",
                       th_buf_cstr(&q));
        }
    }
}

static void container(const struct th_req_ctx *c, const struct th_view *v, const struct th_view *box,
                      bool is_template)
{
    const char *name = th_view_str(box, "name");
    th_autofree char *seccomp = th_xasprintf("container.seccomp.security.alpha.kubernetes.io/%s", name);
    if (!th_view_has(box, "securityContext.seccompProfile")) {
        warn_annotation(c, v, seccomp,
                        "non-functional in v1.27+; use the \"seccompProfile\" field instead");
    }
    th_autofree char *apparmor = th_xasprintf("container.apparmor.security.beta.kubernetes.io/%s", name);
    if (is_template && !th_view_has(box, "securityContext.appArmorProfile") &&
        !th_view_has(v, "spec.securityContext.appArmorProfile")) {
        warn_annotation(c, v, apparmor,
                        "deprecated since v1.30; use the \"appArmorProfile\" field instead");
    }
    static const char *const amounts[][2] = {{"resources.limits", "memory"},
                                             {"resources.requests", "memory"},
                                             {"resources.limits", "ephemeral-storage"},
                                             {"resources.requests", "ephemeral-storage"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(amounts); i++) {
        th_warn_fraction(c, box, amounts[i][0], amounts[i][1]);
    }
    hidden_env(c, box);
}

typedef void port_fn(const struct th_req_ctx *c, const struct th_view *port,
                     const struct th_view *before);

static void same_port(const struct th_req_ctx *c, const struct th_view *p, const struct th_view *before)
{
    if (th_view_int(p, "containerPort", 0) != th_view_int(before, "containerPort", 0) ||
        !th_view_is(p, "protocol", th_view_str(before, "protocol"))) {
        return;
    }
    const char *ip = th_view_str(p, "hostIP");
    const char *other = th_view_str(before, "hostIP");
    int64_t host = th_view_int(p, "hostPort", 0);
    int64_t other_host = th_view_int(before, "hostPort", 0);
    const char *how = NULL;
    if (th_streq(ip, other) && host == other_host) {
        how = "duplicate";
    } else if (host == 0 || other_host == 0) {
        how = "overlapping";
    } else if (host == other_host && !*ip != !*other) {
        how = "dangerously ambiguous";
    }
    if (how) {
        th_autofree char *path = th_view_path(before, NULL);
        th_warn_at(c, p, NULL, "%s port definition with %s", how, path);
    }
}

static void each_port_before(const struct th_req_ctx *c, const struct th_view *v,
                             const struct th_view *last, size_t list, size_t box, size_t port,
                             port_fn *fn)
{
    for (size_t l = 0; l <= list; l++) {
        size_t boxes = l < list ? th_view_len(v, container_lists[l]) : box + 1;
        for (size_t b = 0; b < boxes; b++) {
            struct th_view where = th_view_item(v, container_lists[l], b);
            size_t ports = l == list && b == box ? port : th_view_len(&where, "ports");
            for (size_t k = 0; k < ports; k++) {
                struct th_view before = th_view_item(&where, "ports", k);
                fn(c, last, &before);
            }
        }
    }
}

/* Names are compared with the first that has it only. */
static const struct th_view *first_named(const struct th_view *v, const char *name,
                                         struct th_view *box, struct th_view *port)
{
    for (size_t l = 0; l < TH_ARRAY_LEN(container_lists); l++) {
        for (size_t b = 0; b < th_view_len(v, container_lists[l]); b++) {
            *box = th_view_item(v, container_lists[l], b);
            for (size_t k = 0; k < th_view_len(box, "ports"); k++) {
                *port = th_view_item(box, "ports", k);
                if (th_view_is(port, "name", name)) {
                    return port;
                }
            }
        }
    }
    return NULL;
}

static void host_ip(const struct th_req_ctx *c, const struct th_view *p)
{
    if (*th_view_str(p, "hostIP") && th_view_int(p, "hostPort", 0) == 0) {
        th_warn_at(c, p, NULL,
                   "hostIP set without hostPort: {Name:%s HostPort:0 ContainerPort:%lld Protocol:%s "
                   "HostIP:%s}",
                   th_view_str(p, "name"), (long long)th_view_int(p, "containerPort", 0),
                   th_view_str(p, "protocol"), th_view_str(p, "hostIP"));
    }
}

/* Where a port stands in its pod. */
struct port_at {
    struct th_view port;
    size_t list, box, port_i;
};

#define PORTS_MAX 1000 /* of a pod: comparing each with each stays cheap */

static void each_port(const struct th_req_ctx *c, const struct th_view *v,
                      void (*fn)(const struct th_req_ctx *c, const struct th_view *v,
                                 const struct port_at *p))
{
    size_t seen = 0;
    for (size_t l = 0; l < TH_ARRAY_LEN(container_lists); l++) {
        for (size_t b = 0; b < th_view_len(v, container_lists[l]); b++) {
            struct th_view box = th_view_item(v, container_lists[l], b);
            for (size_t k = 0; k < th_view_len(&box, "ports") && seen++ < PORTS_MAX; k++) {
                const struct port_at at = {th_view_item(&box, "ports", k), l, b, k};
                fn(c, v, &at);
            }
        }
    }
}

static void port_itself(const struct th_req_ctx *c, const struct th_view *v,
                        const struct port_at *p)
{
    host_ip(c, &p->port);
    each_port_before(c, v, &p->port, p->list, p->box, p->port_i, same_port);
}

static void port_name(const struct th_req_ctx *c, const struct th_view *v, const struct port_at *p)
{
    struct th_view other_box, other_port;
    const char *name = th_view_str(&p->port, "name");
    const struct th_view *first = *name ? first_named(v, name, &other_box, &other_port) : NULL;
    if (!first || first->obj == p->port.obj) {
        return;
    }
    th_autofree char *path = th_view_path(first, NULL);
    th_warn_at(c, &p->port, NULL,
               "duplicate port name \"%s\" with %s, services and probes that select ports by name "
               "will use %s",
               name, path, path);
}

/* ---- the rest of the pod ---- */

static void duplicates(const struct th_req_ctx *c, const struct th_view *v, const char *list,
                       const char *member)
{
    for (size_t i = 1; i < th_view_len(v, list); i++) {
        struct th_view item = th_view_item(v, list, i);
        const char *value = th_view_str(&item, member);
        for (size_t k = 0; k < i; k++) {
            struct th_view before = th_view_item(v, list, k);
            if (th_view_is(&before, member, value)) {
                th_warn_at(c, &item, member, "duplicate %s \"%s\"", member, value);
                break;
            }
        }
    }
}

void th_warn_pod_like(const struct th_req_ctx *c, const struct th_view *v, bool is_template)
{
    node_labels(c, v);
    annotations(c, v);
    volumes(c, v);
    duplicates(c, v, "spec.hostAliases", "ip");
    duplicates(c, v, "spec.imagePullSecrets", "name");
    for (size_t i = 0; i < th_view_len(v, "spec.imagePullSecrets"); i++) {
        struct th_view s = th_view_item(v, "spec.imagePullSecrets", i);
        if (!*th_view_str(&s, "name")) {
            th_warn_at(c, &s, "name", "invalid empty name \"\"");
        }
    }
    th_warn_fraction(c, v, "spec.overhead", "memory");
    th_warn_fraction(c, v, "spec.overhead", "ephemeral-storage");
    if (!th_view_has(v, "spec.securityContext.seccompProfile")) {
        warn_annotation(c, v, "seccomp.security.alpha.kubernetes.io/pod",
                        "non-functional in v1.27+; use the \"seccompProfile\" field instead");
    }
    for (size_t l = 0; l < TH_ARRAY_LEN(container_lists); l++) {
        for (size_t b = 0; b < th_view_len(v, container_lists[l]); b++) {
            struct th_view box = th_view_item(v, container_lists[l], b);
            container(c, v, &box, is_template);
        }
    }
    each_port(c, v, port_itself);
    each_port(c, v, port_name);
    if (th_view_int(v, "spec.terminationGracePeriodSeconds", 0) < 0) {
        th_warn_at(c, v, "spec.terminationGracePeriodSeconds",
                   "must be >= 0; negative values are invalid and will be treated as 1");
    }
    affinity(c, v, "spec.affinity.podAffinity");
    affinity(c, v, "spec.affinity.podAntiAffinity");
    for (size_t i = 0; i < th_view_len(v, "spec.dnsConfig.nameservers"); i++) {
        struct th_view ns = th_view_item(v, "spec.dnsConfig.nameservers", i);
        th_warn_ip(c, &ns, NULL, th_view_str(&ns, NULL));
    }
    for (size_t i = 0; i < th_view_len(v, "spec.hostAliases"); i++) {
        struct th_view a = th_view_item(v, "spec.hostAliases", i);
        th_warn_ip(c, &a, "ip", th_view_str(&a, "ip"));
    }
}
