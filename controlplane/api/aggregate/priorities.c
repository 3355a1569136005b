/* Where groups and versions stand in discovery. The figures are upstream's, so that a group that users
 * bring with a priority of their own lands where it does there. */
#include "controlplane/api/aggregate/aggregate.h"

#define CUSTOM_GROUP 1000
#define CUSTOM_VERSION 100

static const struct {
    const char *group;
    int64_t priority;
    struct {
        const char *version;
        int64_t priority;
    } versions[4];
} built_in[] = {
    {"", 18000, {{"v1", 1}}},
    {"apps", 17800, {{"v1", 15}}},
    {"events.k8s.io", 17750, {{"v1", 15}, {"v1beta1", 5}}},
    {"authentication.k8s.io", 17700, {{"v1", 15}, {"v1beta1", 9}, {"v1alpha1", 1}}},
    {"authorization.k8s.io", 17600, {{"v1", 15}}},
    {"autoscaling", 17500, {{"v2", 30}, {"v1", 15}}},
    {"batch", 17400, {{"v1", 15}}},
    {"certificates.k8s.io", 17300, {{"v1", 15}, {"v1beta1", 9}, {"v1alpha1", 1}}},
    {"networking.k8s.io", 17200, {{"v1", 15}, {"v1beta1", 9}}},
    {"policy", 17100, {{"v1", 15}}},
    {"rbac.authorization.k8s.io", 17000, {{"v1", 15}}},
    {"storage.k8s.io", 16800, {{"v1", 15}, {"v1beta1", 9}, {"v1alpha1", 1}}},
    {"apiextensions.k8s.io", 16700, {{"v1", 15}}},
    {"admissionregistration.k8s.io", 16700, {{"v1", 15}, {"v1beta1", 12}, {"v1alpha1", 9}}},
    {"scheduling.k8s.io", 16600, {{"v1", 15}, {"v1alpha2", 2}}},
    {"coordination.k8s.io", 16500, {{"v1", 15}, {"v1beta1", 13}, {"v1alpha2", 12}}},
    {"node.k8s.io", 16300, {{"v1", 15}}},
    {"discovery.k8s.io", 16200, {{"v1", 15}}},
    {"resource.k8s.io", 16200, {{"v1", 21}, {"v1beta2", 15}, {"v1beta1", 9}, {"v1alpha3", 1}}},
    {"flowcontrol.apiserver.k8s.io", 16100, {{"v1", 21}}},
    {"apiregistration.k8s.io", 18000, {{"v1", 18}}},
    {"metrics.k8s.io", 100, {{"v1beta1", 100}}},
};

void th_aggr_priorities(const char *group, const char *version, int64_t *ret_group,
                        int64_t *ret_version)
{
    *ret_group = CUSTOM_GROUP;
    *ret_version = CUSTOM_VERSION;
    for (size_t i = 0; i < TH_ARRAY_LEN(built_in); i++) {
        if (!th_streq(built_in[i].group, group)) {
            continue;
        }
        *ret_group = built_in[i].priority;
        *ret_version = 1;
        for (size_t k = 0; k < 4 && built_in[i].versions[k].version; k++) {
            if (th_streq(built_in[i].versions[k].version, version)) {
                *ret_version = built_in[i].versions[k].priority;
            }
        }
    }
}

struct version {
    bool known; /* v<number>[alpha|beta<number>] */
    int stage;  /* 0 alpha, 1 beta, 2 GA */
    long major, minor;
};

static struct version parse_version(const char *v)
{
    struct version r = {.stage = 2};
    char *end = NULL;
    if (*v != 'v' || v[1] < '1' || v[1] > '9') {
        return r;
    }
    r.major = strtol(v + 1, &end, 10);
    if (th_startswith(end, "alpha") || th_startswith(end, "beta")) {
        r.stage = *end == 'b';
        end += r.stage ? 4 : 5;
        r.known = *end >= '1' && *end <= '9';
        r.minor = strtol(end, &end, 10);
        r.known = r.known && *end == '\0';
        return r;
    }
    r.known = *end == '\0';
    return r;
}

bool th_version_before(const char *a, const char *b)
{
    struct version x = parse_version(a), y = parse_version(b);
    if (!x.known || !y.known) {
        return x.known != y.known ? x.known : strcmp(a, b) < 0;
    }
    if (x.stage != y.stage) {
        return x.stage > y.stage;
    }
    return x.major != y.major ? x.major > y.major : x.minor > y.minor;
}
