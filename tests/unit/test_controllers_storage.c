/* Claims and volumes from one end to the other: binding, provisioning, what keeps them and what
 * becomes of their data, and how the scheduler deals with both. */
#include "inprocess.h"

#define CLAIMS "/api/v1/namespaces/default/persistentvolumeclaims"
#define VOLUMES "/api/v1/persistentvolumes"
#define CLASSES "/apis/storage.k8s.io/v1/storageclasses"
#define PODS "/api/v1/namespaces/default/pods"

static void make_volume(struct inproc *p, const char *name, const char *size, const char *class,
                        const char *more)
{
    th_autofree char *text =
        th_xasprintf("{'metadata':{'name':'%s','labels':{'disk':'%s'}},'spec':{'capacity':"
                     "{'storage':'%s'},'accessModes':['ReadWriteOnce'],'storageClassName':'%s',"
                     "'hostPath':{'path':'/data/%s'}%s}}",
                     name, name, size, class, name, more);
    api_make(p, VOLUMES, text);
}

static void make_claim(struct inproc *p, const char *name, const char *size, const char *more)
{
    th_autofree char *text =
        th_xasprintf("{'metadata':{'name':'%s'},'spec':{'accessModes':['ReadWriteOnce'],"
                     "'resources':{'requests':{'storage':'%s'}}%s}}",
                     name, size, more);
    api_make(p, CLAIMS, text);
}

static void make_pod(struct inproc *p, const char *name, const char *volume)
{
    th_autofree char *text =
        th_xasprintf("{'metadata':{'name':'%s'},'spec':{'automountServiceAccountToken':false,"
                     "'terminationGracePeriodSeconds':0,"
                     "'containers':[{'name':'c','image':'i'}],'volumes':[{'name':'v',%s}]}}",
                     name, volume);
    api_make(p, PODS, text);
}

static void make_node(struct inproc *p, const char *name)
{
    th_autofree char *text = th_xasprintf(
        "{'metadata':{'name':'%s','labels':{'kubernetes.io/hostname':'%s'}},'status':{"
        "'allocatable':{'cpu':'4','memory':'4Gi','pods':'10'}}}",
        name, name);
    api_make(p, "/api/v1/nodes", text);
}

static const char *str(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : "";
}

static bool is_phase(const struct th_json *o, const char *phase)
{
    return th_streq(str(o, "status.phase"), phase);
}

static bool is_bound(const struct th_json *o)
{
    return is_phase(o, "Bound");
}

static bool is_available(const struct th_json *o)
{
    return is_phase(o, "Available");
}

static bool is_released(const struct th_json *o)
{
    return is_phase(o, "Released");
}

static bool is_lost(const struct th_json *o)
{
    return is_phase(o, "Lost");
}

static bool is_gone(const struct th_json *o)
{
    return o == NULL;
}

static bool is_on_n1(const struct th_json *o)
{
    return th_streq(str(o, "spec.nodeName"), "n1");
}

static bool is_decided(const struct th_json *o)
{
    return is_on_n1(o) || th_json_path(o, "status.conditions[0]");
}

static bool is_going(const struct th_json *o)
{
    return th_json_path_str(o, "metadata.deletionTimestamp") != NULL;
}

static const char *wanted_event; /* "reason: message" */

static bool has_event(const struct th_json *list)
{
    const struct th_json *items = th_json_get(list, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *e = th_json_at(items, i);
        th_autofree char *text = th_xasprintf("%s: %s", str(e, "reason"), str(e, "message"));
        if (strstr(text, wanted_event)) {
            return true;
        }
    }
    return false;
}

static void await_event(struct inproc *p, const char *text)
{
    wanted_event = text;
    await(p, text, "/api/v1/namespaces/default/events", has_event);
}

static const char *note(const struct th_json *o, const char *name)
{
    const char *s = th_json_str(th_json_get(th_json_path(o, "metadata.annotations"), name));
    return s ? s : "";
}

static const char *const all = "persistentvolume-controller,pvc-protection-controller,"
                               "pv-protection-controller,thimble.dev/host-path,ephemeral_volume,"
                               "volume_expand";

/* ---- Tests ---- */

static void the_smallest_volume_that_suits_is_bound(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    /* the binder's cache may be behind, but sees volumes in the order in which they came */
    make_volume(p, "medium", "3Gi", "", "");
    await(p, "available", VOLUMES "/medium", is_available);
    make_volume(p, "small", "1Gi", "", "");
    make_volume(p, "other-class", "2Gi", "fast", "");
    make_volume(p, "large", "10Gi", "", "");
    await(p, "available", VOLUMES "/large", is_available);
    make_claim(p, "data", "2Gi", ",'storageClassName':''");
    await(p, "claim bound", CLAIMS "/data", is_bound);
    await(p, "volume bound", VOLUMES "/medium", is_bound);
    struct th_json *c TH_AUTO(th_json) = api_get(p, CLAIMS "/data");
    struct th_json *v TH_AUTO(th_json) = api_get(p, VOLUMES "/medium");
    assert_string_equal(str(c, "spec.volumeName"), "medium");
    assert_string_equal(str(c, "status.capacity.storage"), "3Gi");
    assert_string_equal(note(c, "pv.kubernetes.io/bind-completed"), "yes");
    assert_string_equal(note(c, "pv.kubernetes.io/bound-by-controller"), "yes");
    assert_string_equal(note(v, "pv.kubernetes.io/bound-by-controller"), "yes");
    assert_string_equal(str(v, "spec.claimRef.uid"), str(c, "metadata.uid"));
    assert_string_equal(str(c, "metadata.finalizers[0]"), "kubernetes.io/pvc-protection");
    assert_string_equal(str(v, "metadata.finalizers[0]"), "kubernetes.io/pv-protection");
    assert_true(*str(v, "status.lastPhaseTransitionTime"));
    inproc_free(p);
}

static void selectors_and_names_choose_the_volume(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    make_volume(p, "a", "1Gi", "", "");
    make_volume(p, "b", "5Gi", "", "");
    make_volume(p, "kept", "1Gi", "",
                ",'claimRef':{'namespace':'default','name':'third','kind':'PersistentVolumeClaim'}");
    make_claim(p, "first", "1Gi",
               ",'storageClassName':'','selector':{'matchLabels':{'disk':'b'}}");
    await(p, "by label", CLAIMS "/first", is_bound);
    make_claim(p, "second", "2Gi", ",'storageClassName':'','volumeName':'a'");
    await_event(p, "VolumeMismatch: Cannot bind to requested volume \"a\": requested PV is too "
                   "small");
    make_claim(p, "third", "1Gi", ",'storageClassName':''");
    await(p, "its own", CLAIMS "/third", is_bound);
    struct th_json *c TH_AUTO(th_json) = api_get(p, CLAIMS "/third");
    assert_string_equal(str(c, "spec.volumeName"), "kept");
    struct th_json *first TH_AUTO(th_json) = api_get(p, CLAIMS "/first");
    assert_string_equal(str(first, "spec.volumeName"), "b");
    make_claim(p, "fourth", "9Gi", ",'storageClassName':''");
    await_event(p, "FailedBinding: no persistent volumes available for this claim and no storage "
                   "class is set");
    inproc_free(p);
}

static void retained_volumes_are_released_and_lost_ones_said(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    make_volume(p, "v", "1Gi", "", "");
    make_claim(p, "c", "1Gi", ",'storageClassName':''");
    await(p, "bound", CLAIMS "/c", is_bound);
    api_delete(p, VOLUMES "/v");
    await(p, "protected", VOLUMES "/v", is_going);
    api_delete(p, CLAIMS "/c");
    await(p, "nobody uses it", CLAIMS "/c", is_gone);
    await(p, "nor the volume", VOLUMES "/v", is_gone);
    make_volume(p, "w", "1Gi", "", "");
    make_claim(p, "d", "1Gi", ",'storageClassName':''");
    await(p, "bound", CLAIMS "/d", is_bound);
    api_delete(p, CLAIMS "/d");
    await(p, "released", VOLUMES "/w", is_released);
    api_patch(p, VOLUMES "/w", "{'spec':{'claimRef':null}}");
    await(p, "free again", VOLUMES "/w", is_available);
    make_claim(p, "e", "1Gi", ",'storageClassName':''");
    await(p, "bound", CLAIMS "/e", is_bound);
    api_delete(p, VOLUMES "/w");
    api_patch(p, VOLUMES "/w", "{'metadata':{'finalizers':null}}");
    await(p, "lost", CLAIMS "/e", is_lost);
    await_event(p, "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is "
                   "lost!");
    inproc_free(p);
}

static char provisioned[128]; /* the path of the volume */

static bool grew(const struct th_json *o)
{
    return th_streq(str(o, "status.capacity.storage"), "3Gi");
}

static void the_default_class_makes_folders_and_removes_them(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    make_claim(p, "data", "1Gi", "");
    await(p, "bound", CLAIMS "/data", is_bound);
    await_event(p, "ExternalProvisioning: Waiting for a volume to be created either by the "
                   "external provisioner 'thimble.dev/host-path' or manually");
    await_event(p, "ProvisioningSucceeded: Successfully provisioned volume pvc-");
    struct th_json *c TH_AUTO(th_json) = api_get(p, CLAIMS "/data");
    assert_string_equal(str(c, "spec.storageClassName"), "standard");
    assert_string_equal(note(c, "volume.kubernetes.io/storage-provisioner"),
                        "thimble.dev/host-path");
    (void)snprintf(provisioned, sizeof(provisioned), VOLUMES "/pvc-%s", str(c, "metadata.uid"));
    struct th_json *v TH_AUTO(th_json) = api_get(p, provisioned);
    assert_string_equal(note(v, "pv.kubernetes.io/provisioned-by"), "thimble.dev/host-path");
    assert_string_equal(str(v, "spec.persistentVolumeReclaimPolicy"), "Delete");
    const char *path = str(v, "spec.hostPath.path");
    assert_true(th_startswith(path, p->volumes_dir));
    assert_true(th_io_is_dir(path));
    api_patch(p, CLAIMS "/data", "{'spec':{'resources':{'requests':{'storage':'3Gi'}}}}");
    await(p, "grown", CLAIMS "/data", grew);
    struct th_json *larger TH_AUTO(th_json) = api_get(p, provisioned);
    assert_string_equal(str(larger, "spec.capacity.storage"), "3Gi");
    await_event(p, "VolumeResizeSuccessful");
    api_delete(p, CLAIMS "/data");
    await(p, "volume gone", provisioned, is_gone);
    assert_false(th_io_exists(path));
    inproc_free(p);
}

static void only_own_folders_are_removed(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    th_autofree char *mine = th_path_join(p->volumes_dir, "precious");
    assert_int_equal(th_io_mkdir_p(mine, 0755, NULL), 0);
    th_autofree char *text = th_xasprintf(
        "{'metadata':{'name':'trap','annotations':{'pv.kubernetes.io/provisioned-by':"
        "'thimble.dev/host-path'}},'spec':{'capacity':{'storage':'1Gi'},'accessModes':"
        "['ReadWriteOnce'],'persistentVolumeReclaimPolicy':'Delete','hostPath':{'path':'%s'},"
        "'claimRef':{'namespace':'default','name':'c','uid':'x'}}}",
        mine);
    api_make(p, VOLUMES, text);
    await(p, "released", VOLUMES "/trap", is_released);
    await_event(p, "is not a folder of thimble.dev/host-path");
    assert_true(th_io_is_dir(mine));
    inproc_free(p);
}

static void a_claim_in_use_stays_until_its_pod_is_gone(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, true);
    make_node(p, "n1");
    make_claim(p, "data", "1Gi", "");
    make_pod(p, "user", "'persistentVolumeClaim':{'claimName':'data'}");
    await(p, "placed", PODS "/user", is_on_n1);
    api_delete(p, CLAIMS "/data");
    await(p, "going", CLAIMS "/data", is_going);
    for (bool placed = true; placed;) { /* until the scheduler has seen it, too */
        make_pod(p, "late", "'persistentVolumeClaim':{'claimName':'data'}");
        await(p, "decided", PODS "/late", is_decided);
        struct th_json *late TH_AUTO(th_json) = api_get(p, PODS "/late");
        placed = is_on_n1(late);
        if (placed) {
            api_delete(p, PODS "/late?gracePeriodSeconds=0");
        }
    }
    await_event(p, "FailedScheduling: 0/1 nodes are available: persistentvolumeclaim \"data\" is "
                   "being deleted. preemption: 0/1 nodes are available: 1 Preemption is not "
                   "helpful for scheduling.");
    api_delete(p, PODS "/late");
    api_delete(p, PODS "/user?gracePeriodSeconds=0");
    await(p, "gone", CLAIMS "/data", is_gone);
    inproc_free(p);
}

static void claims_that_wait_for_a_consumer_follow_the_scheduler(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, true);
    api_make(p, CLASSES, "{'metadata':{'name':'late'},'provisioner':'thimble.dev/host-path',"
                         "'volumeBindingMode':'WaitForFirstConsumer'}");
    make_node(p, "n1");
    make_claim(p, "data", "1Gi", ",'storageClassName':'late'");
    await_event(p, "WaitForFirstConsumer: waiting for first consumer to be created before binding");
    make_pod(p, "user", "'persistentVolumeClaim':{'claimName':'data'}");
    await(p, "bound", CLAIMS "/data", is_bound);
    await(p, "placed", PODS "/user", is_on_n1);
    struct th_json *c TH_AUTO(th_json) = api_get(p, CLAIMS "/data");
    assert_string_equal(note(c, "volume.kubernetes.io/selected-node"), "n1");
    /* a volume of one node draws the pod there */
    make_node(p, "n2");
    api_make(p, CLASSES, "{'metadata':{'name':'local'},'provisioner':'kubernetes.io/no-provisioner',"
                         "'volumeBindingMode':'WaitForFirstConsumer'}");
    static const char *const affinity =
        ",'nodeAffinity':{'required':{'nodeSelectorTerms':[{'matchExpressions':[{'key':"
        "'kubernetes.io/hostname','operator':'In','values':['n1']}]}]}}";
    make_volume(p, "disk", "5Gi", "local", affinity);
    await(p, "available", VOLUMES "/disk", is_available);
    make_claim(p, "local", "2Gi", ",'storageClassName':'local'");
    make_pod(p, "tied", "'persistentVolumeClaim':{'claimName':'local'}");
    await(p, "placed", PODS "/tied", is_on_n1);
    await(p, "bound", CLAIMS "/local", is_bound);
    make_claim(p, "none", "2Gi", ",'storageClassName':'local'");
    make_pod(p, "stuck", "'persistentVolumeClaim':{'claimName':'none'}");
    await_event(p, "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to "
                   "bind.");
    inproc_free(p);
}

static void pods_wait_for_claims_that_are_bound_at_once(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, true);
    make_node(p, "n1");
    make_pod(p, "early", "'persistentVolumeClaim':{'claimName':'data'}");
    await_event(p, "0/1 nodes are available: persistentvolumeclaim \"data\" not found.");
    make_claim(p, "data", "1Gi", ",'storageClassName':''");
    await_event(p, "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    make_volume(p, "v", "1Gi", "", "");
    await(p, "placed", PODS "/early", is_on_n1);
    inproc_free(p);
}

static void one_pod_only_uses_a_read_write_once_pod_claim(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, true);
    make_node(p, "n1");
    api_make(p, CLAIMS, "{'metadata':{'name':'mine'},'spec':{'accessModes':['ReadWriteOncePod'],"
                        "'resources':{'requests':{'storage':'1Gi'}}}}");
    make_pod(p, "first", "'persistentVolumeClaim':{'claimName':'mine'}");
    await(p, "placed", PODS "/first", is_on_n1);
    make_pod(p, "second", "'persistentVolumeClaim':{'claimName':'mine'}");
    await_event(p, "1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access "
                   "mode already in-use by another pod");
    api_delete(p, PODS "/first?gracePeriodSeconds=0");
    await(p, "its turn", PODS "/second", is_on_n1);
    inproc_free(p);
}

static void ephemeral_volumes_bring_their_claim(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, true);
    make_node(p, "n1");
    make_pod(p, "user", "'ephemeral':{'volumeClaimTemplate':{'metadata':{'labels':{'a':'b'}},"
                        "'spec':{'accessModes':['ReadWriteOnce'],'resources':{'requests':"
                        "{'storage':'1Gi'}}}}}");
    await(p, "claim", CLAIMS "/user-v", is_bound);
    await(p, "placed", PODS "/user", is_on_n1);
    struct th_json *c TH_AUTO(th_json) = api_get(p, CLAIMS "/user-v");
    assert_string_equal(str(c, "metadata.ownerReferences[0].name"), "user");
    assert_string_equal(str(c, "metadata.labels.a"), "b");
    make_claim(p, "other-v", "1Gi", "");
    make_pod(p, "other", "'ephemeral':{'volumeClaimTemplate':{'spec':{'accessModes':"
                         "['ReadWriteOnce'],'resources':{'requests':{'storage':'1Gi'}}}}}");
    await_event(p, "FailedBinding: ephemeral volume v: PVC default/other-v was not created for pod "
                   "default/other (pod is not owner)");
    inproc_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_volume_that_suits_is_bound),
        cmocka_unit_test(selectors_and_names_choose_the_volume),
        cmocka_unit_test(retained_volumes_are_released_and_lost_ones_said),
        cmocka_unit_test(the_default_class_makes_folders_and_removes_them),
        cmocka_unit_test(only_own_folders_are_removed),
        cmocka_unit_test(a_claim_in_use_stays_until_its_pod_is_gone),
        cmocka_unit_test(claims_that_wait_for_a_consumer_follow_the_scheduler),
        cmocka_unit_test(pods_wait_for_claims_that_are_bound_at_once),
        cmocka_unit_test(one_pod_only_uses_a_read_write_once_pod_claim),
        cmocka_unit_test(ephemeral_volumes_bring_their_claim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
