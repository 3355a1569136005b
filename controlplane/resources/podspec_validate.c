/*
 * Rules of a PodSpec that the type tables cannot say.
 *
 * Names and images that must be there, names that must be unique, mounts that must find their
 * volume, ports and environment. Paths and words are those of pkg/apis/core/validation; what is not
 * checked here is accepted, never the other way round.
 */
#include "controlplane/resources/podrules.h"
#include "controlplane/schema/names.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/validate.h"

struct spec_view {
    const struct th_json *spec;
    const char *path;
    struct th_err *err;
};

static const char *str(const struct th_json *o, const char *name)
{
    const char *s = th_json_str(th_json_get(o, name));
    return s ? s : "";
}

static void check_label(struct th_err *err, const char *path, const char *value)
{
    const char *msgs[TH_NAME_MSGS];
    size_t n = th_name_messages(TH_NAME_DNS1123_LABEL, value, msgs);
    for (size_t i = 0; i < n; i++) {
        th_invalid_str(err, path, value, msgs[i]);
    }
}

/* The member `name` of every item in list before i. */
static bool seen_before(const struct th_json *list, size_t i, const char *member, const char *value)
{
    for (size_t k = 0; k < i; k++) {
        if (th_streq(str(th_json_at(list, k), member), value)) {
            return true;
        }
    }
    return false;
}

static void invalid_duplicate_str(struct th_err *err, const char *path, const char *value)
{
    TH_AUTO(th_json) struct th_json *v = th_json_string(value);
    th_invalid_duplicate(err, path, v);
}

static void check_ports(struct spec_view *v, const struct th_json *ctr, const char *path)
{
    static const char *const protocols[] = {"SCTP", "TCP", "UDP", NULL};
    const struct th_json *ports = th_json_get(ctr, "ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const struct th_json *p = th_json_at(ports, i);
        const char *name = str(p, "name");
        th_autofree char *at = th_field_path("%s.ports[%zu]", path, i);
        th_autofree char *name_at = th_field_child(at, "name");
        if (*name && th_name_port(name)) {
            th_invalid_str(v->err, name_at, name, th_name_port(name));
        } else if (*name && seen_before(ports, i, "name", name)) {
            invalid_duplicate_str(v->err, name_at, name);
        }
        static const char *const fields[] = {"containerPort", "hostPort"};
        for (size_t k = 0; k < TH_ARRAY_LEN(fields); k++) {
            int64_t n = th_json_as_int(th_json_get(p, fields[k]), 0);
            th_autofree char *port_at = th_field_child(at, fields[k]);
            if (k == 0 && n == 0) {
                th_invalid_required(v->err, port_at, "");
            } else if (n != 0 && (n < 1 || n > 65535)) {
                th_invalid_int(v->err, port_at, n, "must be between 1 and 65535, inclusive");
            }
        }
        const char *protocol = str(p, "protocol");
        th_autofree char *proto_at = th_field_child(at, "protocol");
        if (!*protocol) {
            th_invalid_required(v->err, proto_at, "");
        } else if (!th_streq(protocol, "TCP") && !th_streq(protocol, "UDP") &&
                   !th_streq(protocol, "SCTP")) {
            th_invalid_not_supported(v->err, proto_at, protocol, protocols);
        }
    }
}

static void check_env(struct spec_view *v, const struct th_json *ctr, const char *path)
{
    const struct th_json *env = th_json_get(ctr, "env");
    for (size_t i = 0; i < th_json_len(env); i++) {
        const char *name = str(th_json_at(env, i), "name");
        th_autofree char *at = th_field_path("%s.env[%zu].name", path, i);
        if (!*name) {
            th_invalid_required(v->err, at, "");
        } else if (th_name_env(name)) {
            th_invalid_str(v->err, at, name, th_name_env(name));
        }
        const struct th_json *from = th_json_get(th_json_at(env, i), "valueFrom");
        th_autofree char *from_at = th_field_path("%s.env[%zu].valueFrom", path, i);
        if (from && *str(th_json_at(env, i), "value")) {
            th_invalid_str(v->err, from_at, "", "may not be specified when `value` is not empty");
        }
    }
}

static bool has_volume(const struct th_json *spec, const char *name)
{
    const struct th_json *list = th_json_get(spec, "volumes");
    return seen_before(list, th_json_len(list), "name", name);
}

static void check_mounts(struct spec_view *v, const struct th_json *ctr, const char *path)
{
    const struct th_json *mounts = th_json_get(ctr, "volumeMounts");
    for (size_t i = 0; i < th_json_len(mounts); i++) {
        const struct th_json *m = th_json_at(mounts, i);
        const char *name = str(m, "name"), *where = str(m, "mountPath");
        th_autofree char *name_at = th_field_path("%s.volumeMounts[%zu].name", path, i);
        th_autofree char *path_at = th_field_path("%s.volumeMounts[%zu].mountPath", path, i);
        if (!*name) {
            th_invalid_required(v->err, name_at, "");
        } else if (!has_volume(v->spec, name)) {
            TH_AUTO(th_json) struct th_json *bad = th_json_string(name);
            th_invalid_not_found(v->err, name_at, bad);
        }
        if (!*where) {
            th_invalid_required(v->err, path_at, "");
        } else if (seen_before(mounts, i, "mountPath", where)) {
            th_invalid_str(v->err, path_at, where, "must be unique");
        }
    }
}

/* Requests may not be above limits. */
static void check_resources(struct spec_view *v, const struct th_json *ctr, const char *path)
{
    const struct th_json *limits = th_json_path(ctr, "resources.limits");
    struct th_json_iter it = TH_JSON_ITER(th_json_path(ctr, "resources.requests"));
    while (th_json_next(&it)) {
        struct th_quantity want, limit;
        const char *text = th_json_str(it.value);
        if (!text || th_quantity_parse(text, &want, NULL) < 0) {
            continue;
        }
        if (want.nano < 0) {
            th_autofree char *at = th_field_path("%s.resources.requests[%s]", path, it.name);
            th_invalid_str(v->err, at, text, "must be greater than or equal to 0");
        }
        const char *cap = th_json_str(th_json_get(limits, it.name));
        if (cap && th_quantity_parse(cap, &limit, NULL) == 0 && th_quantity_cmp(want, limit) > 0) {
            th_autofree char *at = th_field_path("%s.resources.requests", path);
            th_autofree char *why =
                th_xasprintf("must be less than or equal to %s limit of %s", it.name, cap);
            th_invalid_str(v->err, at, text, why);
        }
    }
}

static void check_container(struct spec_view *v, const struct th_json *ctr, const char *path)
{
    const char *image = str(ctr, "image");
    th_autofree char *image_at = th_field_child(path, "image");
    if (!*image) {
        th_invalid_required(v->err, image_at, "");
    } else if (image[0] == ' ' || image[strlen(image) - 1] == ' ') {
        th_invalid_str(v->err, image_at, image, "must not have leading or trailing whitespace");
    }
    check_ports(v, ctr, path);
    check_env(v, ctr, path);
    check_mounts(v, ctr, path);
    check_resources(v, ctr, path);
}

static bool in_list(const struct th_json *list, const char *name)
{
    return seen_before(list, th_json_len(list), "name", name);
}

static void check_containers(struct spec_view *v, const char *member)
{
    const struct th_json *list = th_json_get(v->spec, member);
    bool main_list = th_streq(member, "containers");
    th_autofree char *list_at = th_field_child(v->path, member);
    if (main_list && th_json_len(list) == 0) {
        th_invalid_required(v->err, list_at, "");
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *ctr = th_json_at(list, i);
        const char *name = str(ctr, "name");
        th_autofree char *at = th_field_index(list_at, i);
        th_autofree char *name_at = th_field_child(at, "name");
        if (!*name) {
            th_invalid_required(v->err, name_at, "");
        } else {
            check_label(v->err, name_at, name);
            if (seen_before(list, i, "name", name) ||
                (!main_list && in_list(th_json_get(v->spec, "containers"), name))) {
                invalid_duplicate_str(v->err, name_at, name);
            }
        }
        check_container(v, ctr, at);
    }
}

/* The sources a volume names; upstream wants exactly one. */
static size_t count_sources(const struct th_json *volume)
{
    size_t n = 0;
    struct th_json_iter it = TH_JSON_ITER(volume);
    while (th_json_next(&it)) {
        n += !th_streq(it.name, "name") && th_json_is(it.value, TH_JSON_OBJECT);
    }
    return n;
}

static void check_volumes(struct spec_view *v)
{
    const struct th_json *list = th_json_get(v->spec, "volumes");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *vol = th_json_at(list, i);
        const char *name = str(vol, "name");
        th_autofree char *at = th_field_path("%s.volumes[%zu]", v->path, i);
        th_autofree char *name_at = th_field_child(at, "name");
        if (!*name) {
            th_invalid_required(v->err, name_at, "");
        } else {
            check_label(v->err, name_at, name);
            if (seen_before(list, i, "name", name)) {
                invalid_duplicate_str(v->err, name_at, name);
            }
        }
        if (count_sources(vol) == 0) {
            th_invalid_required(v->err, at, "must specify a volume type");
        }
    }
}

void th_validate_pod_spec(const struct th_json *spec, const char *path, struct th_err *err)
{
    struct spec_view v = {.spec = spec, .path = path, .err = err};
    check_volumes(&v);
    check_containers(&v, "containers");
    check_containers(&v, "initContainers");
    const char *host = str(spec, "hostname");
    th_autofree char *host_at = th_field_child(path, "hostname");
    if (*host) {
        check_label(err, host_at, host);
    }
    int64_t grace = th_json_as_int(th_json_get(spec, "terminationGracePeriodSeconds"), 0);
    th_autofree char *grace_at = th_field_child(path, "terminationGracePeriodSeconds");
    if (grace < 0) {
        th_invalid_int(err, grace_at, grace, "must be greater than or equal to 0");
    }
    const struct th_json *deadline = th_json_get(spec, "activeDeadlineSeconds");
    th_autofree char *deadline_at = th_field_child(path, "activeDeadlineSeconds");
    if (deadline && th_json_as_int(deadline, 1) < 1) {
        th_invalid_int(err, deadline_at, th_json_as_int(deadline, 0),
                       "must be between 1 and 2147483647, inclusive");
    }
}
