/* Validation that a row can say: th_schema_validate.
 *
 * Upstream validates by hand, kind by kind, and accepts much that its OpenAPI documents call required
 * or closed (every status, for one). So the tables' own "required" and enum marks are not enforced;
 * what is, is listed here, type by type, with the texts and the order of values upstream shows. Rules
 * hang on types and are found wherever the type occurs: a Container is checked in a Pod and in a
 * Deployment's template alike. Rules that look at several members are in controlplane/resources.
 *
 * Status is never entered: it is written by controllers and upstream hardly checks it. */
#include "controlplane/schema/names.h"
#include "controlplane/schema/schema_priv.h"
#include "controlplane/schema/validate.h"

enum rule_kind {
    REQUIRED, /* not missing, "" or [] ; arg: detail */
    ONE_OF,   /* arg: values, separated by | ; "" is skipped */
    AT_LEAST, /* number */
    PORT,     /* 1 to 65535; 0 is REQUIRED's business */
    LABEL,    /* DNS-1123 label */
    UNIQUE    /* list of objects: member arg occurs once */
};
struct rule {
    const char *type, *member;
    enum rule_kind kind;
    const char *arg;
    int64_t min;
};

#define NON_NEGATIVE "must be greater than or equal to 0"
#define WORKLOAD_NUMBERS(t)                                                                        \
    {t, "replicas", AT_LEAST, NULL, 0}, {t, "minReadySeconds", AT_LEAST, NULL, 0},                 \
        {t, "revisionHistoryLimit", AT_LEAST, NULL, 0}
#define CONTAINER(t)                                                                               \
    {t, "name", REQUIRED, NULL, 0}, {t, "name", LABEL, NULL, 0}, {t, "image", REQUIRED, NULL, 0},  \
        {t, "imagePullPolicy", ONE_OF, "Always|IfNotPresent|Never", 0},                            \
        {t, "terminationMessagePolicy", ONE_OF, "FallbackToLogsOnError|File", 0}

/* Sorted by type. */
static const struct rule rules[] = {
    {"apps.v1.DaemonSetSpec", "selector", REQUIRED, NULL, 0},
    WORKLOAD_NUMBERS("apps.v1.DaemonSetSpec"),
    {"apps.v1.DaemonSetUpdateStrategy", "type", ONE_OF, "RollingUpdate|OnDelete", 0},
    {"apps.v1.DeploymentSpec", "selector", REQUIRED, NULL, 0},
    WORKLOAD_NUMBERS("apps.v1.DeploymentSpec"),
    {"apps.v1.DeploymentSpec", "progressDeadlineSeconds", AT_LEAST, NULL, 0},
    {"apps.v1.DeploymentStrategy", "type", ONE_OF, "Recreate|RollingUpdate", 0},
    {"apps.v1.ReplicaSetSpec", "selector", REQUIRED, NULL, 0},
    WORKLOAD_NUMBERS("apps.v1.ReplicaSetSpec"),
    {"apps.v1.StatefulSetSpec", "selector", REQUIRED, NULL, 0},
    WORKLOAD_NUMBERS("apps.v1.StatefulSetSpec"),
    {"batch.v1.CronJobSpec", "schedule", REQUIRED, NULL, 0},
    {"batch.v1.CronJobSpec", "concurrencyPolicy", ONE_OF, "Allow|Forbid|Replace", 0},
    {"batch.v1.CronJobSpec", "startingDeadlineSeconds", AT_LEAST, NULL, 0},
    {"batch.v1.CronJobSpec", "successfulJobsHistoryLimit", AT_LEAST, NULL, 0},
    {"batch.v1.CronJobSpec", "failedJobsHistoryLimit", AT_LEAST, NULL, 0},
    {"batch.v1.JobSpec", "parallelism", AT_LEAST, NULL, 0},
    {"batch.v1.JobSpec", "completions", AT_LEAST, NULL, 0},
    {"batch.v1.JobSpec", "activeDeadlineSeconds", AT_LEAST, NULL, 0},
    {"batch.v1.JobSpec", "backoffLimit", AT_LEAST, NULL, 0},
    {"batch.v1.JobSpec", "ttlSecondsAfterFinished", AT_LEAST, NULL, 0},
    {"batch.v1.JobSpec", "completionMode", ONE_OF, "NonIndexed|Indexed", 0},
    CONTAINER("core.v1.Container"),
    {"core.v1.ContainerPort", "containerPort", REQUIRED, NULL, 0},
    {"core.v1.ContainerPort", "containerPort", PORT, NULL, 0},
    {"core.v1.ContainerPort", "hostPort", PORT, NULL, 0},
    {"core.v1.ContainerPort", "protocol", REQUIRED, NULL, 0},
    {"core.v1.ContainerPort", "protocol", ONE_OF, "SCTP|TCP|UDP", 0},
    {"core.v1.EnvVar", "name", REQUIRED, NULL, 0},
    CONTAINER("core.v1.EphemeralContainer"),
    {"core.v1.HTTPGetAction", "path", REQUIRED, NULL, 0},
    {"core.v1.HTTPGetAction", "scheme", ONE_OF, "HTTP|HTTPS", 0},
    {"core.v1.PersistentVolumeClaimSpec", "volumeMode", ONE_OF, "Block|Filesystem", 0},
    {"core.v1.PersistentVolumeSpec", "accessModes", REQUIRED, NULL, 0},
    {"core.v1.PersistentVolumeSpec", "capacity", REQUIRED, NULL, 0},
    {"core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", ONE_OF,
     "Delete|Recycle|Retain", 0},
    {"core.v1.PersistentVolumeSpec", "volumeMode", ONE_OF, "Block|Filesystem", 0},
    {"core.v1.PodSpec", "volumes", UNIQUE, "name", 0},
    {"core.v1.PodSpec", "containers", REQUIRED, NULL, 0},
    {"core.v1.PodSpec", "containers", UNIQUE, "name", 0},
    {"core.v1.PodSpec", "initContainers", UNIQUE, "name", 0},
    {"core.v1.PodSpec", "restartPolicy", ONE_OF, "Always|OnFailure|Never", 0},
    {"core.v1.PodSpec", "dnsPolicy", ONE_OF, "ClusterFirstWithHostNet|ClusterFirst|Default|None",
     0},
    {"core.v1.PodSpec", "terminationGracePeriodSeconds", AT_LEAST, NULL, 0},
    {"core.v1.Probe", "initialDelaySeconds", AT_LEAST, NULL, 0},
    {"core.v1.Probe", "timeoutSeconds", AT_LEAST, NULL, 0},
    {"core.v1.Probe", "periodSeconds", AT_LEAST, NULL, 0},
    {"core.v1.Probe", "successThreshold", AT_LEAST, NULL, 0},
    {"core.v1.Probe", "failureThreshold", AT_LEAST, NULL, 0},
    {"core.v1.ServicePort", "protocol", ONE_OF, "SCTP|TCP|UDP", 0},
    {"core.v1.ServiceSpec", "sessionAffinity", ONE_OF, "ClientIP|None", 0},
    {"core.v1.ServiceSpec", "type", ONE_OF, "ClusterIP|ExternalName|LoadBalancer|NodePort", 0},
    {"core.v1.Volume", "name", REQUIRED, NULL, 0},
    {"core.v1.Volume", "name", LABEL, NULL, 0},
    {"core.v1.VolumeMount", "name", REQUIRED, NULL, 0},
    {"core.v1.VolumeMount", "mountPath", REQUIRED, NULL, 0},
    {"networking.v1.HTTPIngressPath", "pathType", ONE_OF, "Exact|ImplementationSpecific|Prefix", 0},
    {"rbac.v1.PolicyRule", "verbs", REQUIRED, "verbs must contain at least one value", 0},
    {"storage.v1.StorageClass", "provisioner", REQUIRED, NULL, 0},
};

static bool missing(const struct th_json *v)
{
    switch (th_json_type(v)) {
    case TH_JSON_NULL:
        return true;
    case TH_JSON_STRING:
        return th_json_str_len(v) == 0;
    case TH_JSON_ARRAY:
        return th_json_len(v) == 0;
    case TH_JSON_INT:
        return th_json_as_int(v, 0) == 0;
    default:
        return false;
    }
}

static void check_one_of(const struct rule *r, const char *value, const char *path,
                         struct th_err *err)
{
    th_autostrv struct th_strv values = TH_STRV_INIT;
    th_strv_split(&values, r->arg, '|');
    if (value && *value && !th_strv_has(&values, value)) {
        th_invalid_not_supported(err, path, value, (const char *const *)values.v);
    }
}

static void check_unique(const struct rule *r, const struct th_json *list, const char *path,
                         struct th_err *err)
{
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *key = th_json_get(th_json_at(list, i), r->arg);
        const char *s = th_json_str(key);
        if (!s || !*s) {
            continue;
        }
        if (th_strv_has(&seen, s)) {
            th_autofree char *at = th_field_path("%s[%zu].%s", path, i, r->arg);
            th_invalid_duplicate(err, at, key);
        } else {
            th_strv_add(&seen, s);
        }
    }
}

static void check_rule(const struct rule *r, const struct th_json *obj, const char *parent,
                       struct th_err *err)
{
    const struct th_json *v = th_json_get(obj, r->member);
    th_autofree char *path = th_field_child(parent, r->member);
    const char *s = th_json_str(v);
    int64_t n = th_json_as_int(v, 0);
    switch (r->kind) {
    case REQUIRED:
        if (missing(v)) {
            th_invalid_required(err, path, r->arg);
        }
        break;
    case ONE_OF:
        check_one_of(r, s, path, err);
        break;
    case AT_LEAST:
        if (v && n < r->min) {
            th_invalid_int(err, path, n, NON_NEGATIVE);
        }
        break;
    case PORT:
        if (n != 0 && (n < 1 || n > 65535)) {
            th_invalid_int(err, path, n, "must be between 1 and 65535, inclusive");
        }
        break;
    case LABEL: {
        const char *why = s && *s ? th_name_dns1123_label(s) : NULL;
        if (why) {
            th_invalid_str(err, path, s, why);
        }
        break;
    }
    case UNIQUE:
        check_unique(r, v, path, err);
        break;
    }
}

static void walk(const struct th_type *t, const struct th_json *obj, const char *path,
                 struct th_err *err);

static void walk_field(const struct th_field *f, const struct th_json *obj, const char *parent,
                       struct th_err *err)
{
    const struct th_json *v = th_json_get(obj, f->name);
    if (!v || f->type != TH_F_STRUCT || strcmp(f->name, "status") == 0 ||
        strcmp(f->name, "metadata") == 0) {
        return;
    }
    th_autofree char *path = th_field_child(parent, f->name);
    if (f->shape == TH_SHAPE_ONE) {
        walk(f->sub, v, path, err);
    } else if (f->shape == TH_SHAPE_LIST) {
        for (size_t i = 0; th_json_is(v, TH_JSON_ARRAY) && i < th_json_len(v); i++) {
            th_autofree char *at = th_field_index(path, i);
            walk(f->sub, th_json_at(v, i), at, err);
        }
    }
}

static void walk(const struct th_type *t, const struct th_json *obj, const char *path,
                 struct th_err *err)
{
    if (!th_json_is(obj, TH_JSON_OBJECT) || (t->flags & TH_TF_CUSTOM)) {
        return;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(rules); i++) {
        int c = strcmp(rules[i].type, t->name);
        if (c == 0) {
            check_rule(&rules[i], obj, path, err);
        } else if (c > 0) {
            break;
        }
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        walk_field(&t->fields[i], obj, path, err);
    }
}

size_t th_schema_validate(const struct th_type *t, const struct th_json *obj, const char *path,
                          struct th_err *err)
{
    TH_AUTO_ERR struct th_err none = TH_ERR_INIT;
    struct th_err *to = err ? err : &none;
    size_t before = to->n_causes;
    walk(t, obj, path ? path : "", to);
    return to->n_causes - before;
}
