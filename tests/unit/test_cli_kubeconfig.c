/* The user's kubeconfig: what is merged in, what is kept, how the file is treated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/io.h"
#include "base/json/json.h"
#include "base/json/yaml.h"
#include "cli/kubeconfig.h"

static char dir[] = "/tmp/th-kubeconfig-XXXXXX";
static const char other[] = "# mine\n"
                            "apiVersion: v1\n"
                            "kind: Config\n"
                            "current-context: work\n"
                            "preferences: {colors: true}\n"
                            "clusters:\n"
                            "- {name: work, cluster: {server: https://work.example:6443}}\n"
                            "contexts:\n"
                            "- {name: work, context: {cluster: work, user: me, namespace: team}}\n"
                            "users:\n"
                            "- {name: me, user: {exec: {command: get-token}}}\n"
                            "extensions: [{name: x}]\n";

static struct th_kube_entry entry(const char *name, const char *server)
{
    return (struct th_kube_entry){.name = name, .server = server, .ca_pem = "CA", .cert_pem = "CERT",
                                  .key_pem = "KEY"};
}

static char *file(const char *name, const char *text)
{
    char *path = th_path_join(dir, name);
    if (text) {
        assert_int_equal(th_io_write_file(path, text, strlen(text), 0644, NULL), 0);
    }
    return path;
}

static struct th_json *read_config(const char *path)
{
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_json *docs TH_AUTO(th_json) = NULL;
    assert_int_equal(th_io_read_file(path, 1 << 20, &text, NULL), 0);
    assert_int_equal(th_yaml_parse(text.p, text.n, &docs, NULL), 0);
    return th_json_ref(th_json_at(docs, 0));
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777;
}

static void merge(const char *path, const char *name, const char *server, char **previous)
{
    struct th_kube_entry e = entry(name, server);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_kubeconfig_merge(path, &e, true, previous, &err) != 0) {
        fail_msg("%s", err.msg);
    }
}

static void a_new_file_is_private_and_complete(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(dir, "new/folder/config");
    th_autofree char *previous = NULL;
    merge(path, "thimble", "https://127.0.0.1:1", &previous);
    assert_string_equal(previous, "");
    assert_int_equal(mode_of(path), 0600);
    struct th_json *c TH_AUTO(th_json) = read_config(path);
    assert_string_equal(th_json_path_str(c, "kind"), "Config");
    assert_string_equal(th_json_path_str(c, "current-context"), "thimble");
    assert_string_equal(th_json_path_str(c, "clusters[0].cluster.server"), "https://127.0.0.1:1");
    assert_string_equal(th_json_path_str(c, "clusters[0].cluster.certificate-authority-data"),
                        "Q0E=");
    assert_string_equal(th_json_path_str(c, "users[0].user.client-key-data"), "S0VZ");
    assert_string_equal(th_json_path_str(c, "contexts[0].context.user"), "thimble");
    th_autofree char *lock = th_xasprintf("%s.lock", path);
    assert_false(th_io_exists(lock));
}

static void what_others_wrote_is_kept(void **state)
{
    (void)state;
    th_autofree char *path = file("kept", other);
    th_autofree char *previous = NULL, *again = NULL;
    merge(path, "thimble", "https://127.0.0.1:1", &previous);
    assert_string_equal(previous, "work");
    assert_int_equal(mode_of(path), 0600); /* it holds keys now */
    merge(path, "thimble", "https://127.0.0.1:2", &again);
    assert_null(again); /* it was ours already */
    merge(path, "thimble-b", "https://127.0.0.1:3", NULL);
    struct th_json *c TH_AUTO(th_json) = read_config(path);
    assert_int_equal(th_json_len(th_json_get(c, "clusters")), 3);
    assert_string_equal(th_json_path_str(c, "users[0].user.exec.command"), "get-token");
    assert_string_equal(th_json_path_str(c, "contexts[0].context.namespace"), "team");
    assert_true(th_json_path_bool(c, "preferences.colors", false));
    assert_string_equal(th_json_path_str(c, "extensions[0].name"), "x");
    th_autofree char *server = th_kubeconfig_server(path, "thimble");
    assert_string_equal(server, "https://127.0.0.1:2"); /* replaced, not doubled */
    assert_null(th_kubeconfig_server(path, "nobody"));
}

static void removal_brings_the_context_before_back(void **state)
{
    (void)state;
    static const struct {
        const char *previous, *current; /* what is there after */
    } cases[] = {{"work", "work"}, {"gone", ""}, {"", ""}, {NULL, ""}};
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *path = file("removed", other);
        merge(path, "thimble", "https://127.0.0.1:1", NULL);
        assert_int_equal(th_kubeconfig_remove(path, "thimble", cases[i].previous, NULL), 0);
        struct th_json *c TH_AUTO(th_json) = read_config(path);
        assert_string_equal(th_json_path_str(c, "current-context"), cases[i].current);
        assert_int_equal(th_json_len(th_json_get(c, "clusters")), 1);
        assert_int_equal(th_json_len(th_json_get(c, "users")), 1);
        assert_int_equal(th_json_len(th_json_get(c, "contexts")), 1);
    }
    /* a context that the user chose meanwhile stays */
    th_autofree char *path = file("chosen", other);
    struct th_kube_entry e = entry("thimble", "https://127.0.0.1:1");
    assert_int_equal(th_kubeconfig_merge(path, &e, false, NULL, NULL), 0);
    assert_int_equal(th_kubeconfig_remove(path, "thimble", "gone", NULL), 0);
    struct th_json *c TH_AUTO(th_json) = read_config(path);
    assert_string_equal(th_json_path_str(c, "current-context"), "work");
    th_autofree char *none = th_path_join(dir, "missing");
    assert_int_equal(th_kubeconfig_remove(none, "thimble", NULL, NULL), 0);
    assert_false(th_io_exists(none));
}

static void what_is_no_kubeconfig_is_left_alone(void **state)
{
    (void)state;
    static const char *const texts[] = {"a: [", "[1, 2]", "clusters: 5\n", "text", "a: 1\n---\nb: 2\n"};
    for (size_t i = 0; i < TH_ARRAY_LEN(texts); i++) {
        th_autofree char *path = file("wrong", texts[i]);
        struct th_kube_entry e = entry("thimble", "https://127.0.0.1:1");
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_kubeconfig_merge(path, &e, true, NULL, &err), -TH_R_KUBECONFIG);
        assert_non_null(strstr(err.msg, path));
        assert_non_null(err.hint);
        struct th_buf now TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        assert_int_equal(th_io_read_file(path, 1000, &now, NULL), 0);
        assert_string_equal(th_buf_cstr(&now), texts[i]);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_kube_entry e = entry("thimble", "https://127.0.0.1:1");
    assert_int_equal(th_kubeconfig_merge(dir, &e, true, NULL, &err), -TH_R_KUBECONFIG);
}

static void a_link_is_written_through(void **state)
{
    (void)state;
    th_autofree char *target = file("target", other), *link = th_path_join(dir, "link");
    assert_int_equal(symlink("target", link), 0);
    merge(link, "thimble", "https://127.0.0.1:1", NULL);
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    th_autofree char *server = th_kubeconfig_server(target, "thimble");
    assert_string_equal(server, "https://127.0.0.1:1");
}

static void the_path_is_the_one_kubectl_writes(void **state)
{
    (void)state;
    static const struct {
        const char *env, *path;
    } cases[] = {{"/a/one", "/a/one"}, {"/a/one:/b/two", "/a/one"}, {":/b/two", "/b/two"},
                 {"", "/home/x/.kube/config"}, {NULL, "/home/x/.kube/config"}};
    assert_int_equal(setenv("HOME", "/home/x", 1), 0);
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        (void)(cases[i].env ? setenv("KUBECONFIG", cases[i].env, 1) : unsetenv("KUBECONFIG"));
        th_autofree char *path = th_kubeconfig_path();
        assert_string_equal(path, cases[i].path);
    }
}

/* Several commands at once: nobody's entry is lost. */
static void writers_at_once_lose_nothing(void **state)
{
    (void)state;
    th_autofree char *path = file("busy", other);
    pid_t pids[8];
    for (size_t i = 0; i < TH_ARRAY_LEN(pids); i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            th_autofree char *name = th_xasprintf("thimble-%zu", i);
            struct th_kube_entry e = entry(name, "https://127.0.0.1:1");
            _exit(th_kubeconfig_merge(path, &e, true, NULL, NULL) == 0 ? 0 : 1);
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(pids); i++) {
        int status = 0;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    struct th_json *c TH_AUTO(th_json) = read_config(path);
    assert_int_equal(th_json_len(th_json_get(c, "clusters")), 9);
    assert_int_equal(th_json_len(th_json_get(c, "contexts")), 9);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return th_io_rm_rf(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_file_is_private_and_complete),
        cmocka_unit_test(what_others_wrote_is_kept),
        cmocka_unit_test(removal_brings_the_context_before_back),
        cmocka_unit_test(what_is_no_kubeconfig_is_left_alone),
        cmocka_unit_test(a_link_is_written_through),
        cmocka_unit_test(writers_at_once_lose_nothing),
        cmocka_unit_test(the_path_is_the_one_kubectl_writes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
