/* Pulling, from a registry on loopback (registry.py) that behaves like the real ones: tokens,
 * redirects, indexes, downloads that break off, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "images/content.h"
#include "images/registry.h"

static char dir[] = "/tmp/th-pull-XXXXXX";
static struct th_images *store;
static pid_t registry;
static int registry_in = -1;
static char port[16];
static bool unpacks;

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    const char *source = getenv("TH_SOURCE_DIR");
    th_autofree char *script = th_xasprintf("%s/tests/unit/registry.py", source ? source : ".");
    th_autofree char *port_file = th_path_join(dir, "port"), *images = th_path_join(dir, "images");
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const char *const argv[] = {"python3", script, port_file, NULL};
    struct th_proc_opts o = {.argv = argv, .stdin_fd = ends[0], .stdout_fd = -1, .stderr_fd = -1,
                             .die_with_parent = true};
    registry = th_proc_start(&o, NULL);
    assert_true(registry > 0);
    (void)close(ends[0]);
    registry_in = ends[1];
    int64_t deadline = th_mono_ms() + 60000;
    while (!th_io_exists(port_file)) {
        assert_true(th_mono_ms() < deadline);
        th_sleep_ms(10);
    }
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    assert_int_equal(th_io_read_file(port_file, 10, &text, NULL), 0);
    (void)snprintf(port, sizeof(port), "%s", th_buf_cstr(&text));
    unpacks = geteuid() == 0;
    assert_int_equal(th_io_mkdir_p(images, 0700, NULL), 0);
    assert_int_equal(th_images_open(images, unpacks ? 0 : TH_IMAGES_NO_UNPACK, &store, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)close(registry_in); /* it ends with its input */
    int status = 0;
    assert_true(th_proc_wait(registry, 10000, &status, NULL) >= 0);
    th_images_close(store);
    return th_io_rm_rf(dir, NULL);
}

static int pull(const char *name, struct th_image **ret, struct th_err *err)
{
    th_autofree char *ref = th_xasprintf("127.0.0.1:%s/%s", port, name);
    struct th_pull_opts o = {.timeout_ms = 20000};
    return th_images_pull(store, ref, &o, ret, err);
}

/* Pulls it, and what its file says is text. */
static void good(const char *name, const char *text)
{
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (pull(name, &img, &err) < 0) {
        fail_msg("%s: %s", name, err.msg);
    }
    th_autofree char *full = th_xasprintf("127.0.0.1:%s/%s", port, name);
    assert_true(th_strv_has(&img->names, full));
    assert_int_equal(img->n_layers, 1);
    assert_string_equal(img->config.cmd.v[0], "/hello");
    if (unpacks) {
        th_autofree char *path = th_path_join(img->layers[0].fs, "hello");
        struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        assert_int_equal(th_io_read_file(path, 100, &b, NULL), 0);
        assert_string_equal(th_buf_cstr(&b), text);
    }
}

static void bad(const char *name, enum th_reason reason, const char *msg)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(pull(name, NULL, &err), -(int)reason);
    if (!strstr(err.msg, msg) || !err.hint) {
        fail_msg("%s: %s (%s)", name, err.msg, err.hint ? err.hint : "no next step");
    }
}

static void a_token_is_fetched_and_the_own_platform_chosen(void **state)
{
    (void)state;
    good("multi:1", "mine");
    good("multi:1", "mine"); /* again: what is there is not asked for */
}

static void redirects_are_followed_without_credentials(void **state)
{
    (void)state;
    good("moved:1", "moved");
}

static void downloads_that_break_off_go_on(void **state)
{
    (void)state;
    good("cut:1", "cut");
    good("slow:1", "slow");
}

static void what_cannot_be_had_is_said(void **state)
{
    (void)state;
    bad("private:1", TH_R_UNAUTHORIZED, "does not let us read private");
    bad("nosuch:1", TH_R_NO_IMAGE, "has no 1 of nosuch");
    bad("multi:2", TH_R_NO_IMAGE, "has no 2 of multi");
    bad("arm:1", TH_R_NO_IMAGE, "has no image for linux/");
    bad("damaged:1", TH_R_DIGEST_MISMATCH, "sha256:");
    bad("UPPER:1", TH_R_BAD_REFERENCE, "UPPER");
    assert_int_equal(th_images_resolve(store, "damaged:1", NULL, NULL), -TH_R_NO_IMAGE);
}

static void credentials_are_tried_in_turn(void **state)
{
    (void)state;
    bad("secret:1", TH_R_UNAUTHORIZED, "does not let us read secret");
    TH_AUTO(th_keyring) struct th_keyring *k = th_keyring_new();
    th_autofree char *ref = th_xasprintf("127.0.0.1:%s/secret:1", port);
    th_autofree char *wrong = th_xasprintf("127.0.0.1:%s/secret", port);
    th_autofree char *config = th_xasprintf(
        "{\"auths\":{\"http://127.0.0.1:%s/v2/\":{\"auth\":\"YWxpY2U6d29uZGVy\"}}}", port);
    struct th_pull_opts o = {.timeout_ms = 20000, .keyring = k};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_keyring_add(k, wrong, "mallory", "guess"); /* more specific: the first to be tried */
    assert_int_equal(th_images_pull(store, ref, &o, NULL, &err), -TH_R_UNAUTHORIZED);
    assert_null(strstr(err.msg, "guess"));
    assert_int_equal(th_keyring_add_config(k, th_str_of(config), NULL), 0);
    TH_AUTO(th_image) struct th_image *img = NULL;
    assert_int_equal(th_images_pull(store, ref, &o, &img, NULL), 0);
    assert_int_equal(img->n_layers, 1);
}

static void places_cover_images_as_the_kubelet_has_it(void **state)
{
    (void)state;
    static const struct {
        const char *place, *image;
        bool covers;
    } rows[] = {
        {"registry.example.com", "registry.example.com/a/b:1", true},
        {"https://registry.example.com/v1/", "registry.example.com/a/b:1", true},
        {"registry.example.com", "registry.example.com:5000/a:1", false},
        {"registry.example.com:5000", "registry.example.com:5000/a:1", true},
        {"*.example.com", "registry.example.com/a:1", true},
        {"*.example.com", "example.com/a:1", false},
        {"*.com", "registry.example.com/a:1", false},
        {"reg*.example.com", "registry.example.com/a:1", true},
        {"quay.io/team", "quay.io/team/app:1", true},
        {"quay.io/team", "quay.io/other/app:1", false},
        {"https://index.docker.io/v1/", "busybox", true},
        {"docker.io", "busybox", true},
        {"index.docker.io", "quay.io/busybox", false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        TH_AUTO(th_keyring) struct th_keyring *k = th_keyring_new();
        TH_AUTO_REF struct th_ref r = {0};
        struct th_credential c;
        th_keyring_add(k, rows[i].place, "u", "p");
        assert_int_equal(th_ref_parse(rows[i].image, &r, NULL), 0);
        if (th_keyring_lookup(k, &r, 0, &c) != rows[i].covers) {
            fail_msg("%s and %s", rows[i].place, rows[i].image);
        }
    }
}

static void configs_are_read_in_both_forms(void **state)
{
    (void)state;
    TH_AUTO(th_keyring) struct th_keyring *k = th_keyring_new();
    TH_AUTO_REF struct th_ref r = {0};
    struct th_credential c;
    assert_int_equal(th_ref_parse("a.example/x/y", &r, NULL), 0);
    static const char old[] = "{\"a.example\":{\"username\":\"old\",\"password\":\"1\"}}";
    static const char now[] = "{\"auths\":{\"a.example/x\":{\"auth\":\"bmV3OjI6Mw==\"},"
                              "\"b.example\":{},\"c.example\":{\"auth\":\"!\"}}}";
    assert_int_equal(th_keyring_add_config(k, TH_STR(old), NULL), 0);
    assert_int_equal(th_keyring_add_config(k, TH_STR(now), NULL), 0);
    assert_true(th_keyring_lookup(k, &r, 0, &c)); /* the longer place goes first */
    assert_string_equal(c.user, "new");
    assert_string_equal(c.password, "2:3");
    assert_true(th_keyring_lookup(k, &r, 1, &c));
    assert_string_equal(c.user, "old");
    assert_false(th_keyring_lookup(k, &r, 2, &c));
    assert_int_equal(th_keyring_add_config(k, TH_STR("[]"), NULL), -TH_R_PARSE);
    assert_int_equal(th_keyring_add_config(k, TH_STR("{"), NULL), -TH_R_PARSE);
}

static void by_digest(void **state)
{
    (void)state;
    TH_AUTO(th_image) struct th_image *img = NULL;
    assert_true(pull("multi:1", &img, NULL) >= 0);
    th_autofree char *name = th_xasprintf("multi@%s", img->manifest_digest);
    assert_true(pull(name, NULL, NULL) >= 0);
    char wrong[128];
    (void)snprintf(wrong, sizeof(wrong), "multi@sha256:%064d", 7);
    bad(wrong, TH_R_NO_IMAGE, "multi");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_fetched_and_the_own_platform_chosen),
        cmocka_unit_test(redirects_are_followed_without_credentials),
        cmocka_unit_test(downloads_that_break_off_go_on),
        cmocka_unit_test(what_cannot_be_had_is_said),
        cmocka_unit_test(credentials_are_tried_in_turn),
        cmocka_unit_test(places_cover_images_as_the_kubelet_has_it),
        cmocka_unit_test(configs_are_read_in_both_forms),
        cmocka_unit_test(by_digest),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
