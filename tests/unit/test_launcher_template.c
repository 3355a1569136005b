/* Templates on disk: what the key depends on, that damage is found, that nothing half-made is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/io.h"
#include "vm/launcher/accel.h"
#include "vm/launcher/template.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char cache[] = "/tmp/th-tmpl-XXXXXX";

static int make_cache(void **state)
{
    (void)state;
    memcpy(cache + strlen(cache) - 6, "XXXXXX", 6);
    return mkdtemp(cache) ? 0 : -1;
}

static int remove_cache(void **state)
{
    (void)state;
    return th_io_rm_rf(cache, NULL);
}

static char *path_in(const char *name)
{
    return th_path_join(cache, name);
}

static void put(const char *name, const char *text)
{
    th_autofree char *path = path_in(name);
    assert_int_equal(th_io_write_file(path, text, strlen(text), 0600, NULL), 0);
}

static void the_key_knows_the_machine_and_not_the_profile(void **state)
{
    (void)state;
    put("kernel", "k");
    put("root", "r");
    th_autofree char *kernel = path_in("kernel"), *root = path_in("root");
    char a[] = "a", b[] = "b", da[] = "/d/a", db[] = "/d/b";
    char ua[] = "01234567-89ab-4cde-8f01-23456789abcd", ub[] = "11234567-89ab-4cde-8f01-23456789abcd";
    const struct th_machine_port port = {.host_ip = "127.0.0.1", .host_port = 6443, .guest_port = 6443,
                                         .proto = "tcp"};
    struct th_profile p = {.name = a, .data = da, .state = da, .cache = cache, .uuid = ua,
                           .memory_mb = 1024, .disk_gb = 20, .lock_fd = -1};
    struct th_profile q = {.name = b, .data = db, .state = db, .cache = cache, .uuid = ub,
                           .memory_mb = 1024, .disk_gb = 20, .number = 3, .lock_fd = -1};
    struct th_machine_spec s = {.profile = &p, .accel = "tcg", .cpus = 1, .kernel = kernel, .rootfs = root,
                                .disk = "/d/a/disk", .control = "/c", .qmp = "/q", .console = "/o",
                                .program = "/p", .tsc_khz = 2300000};
    struct th_machine_spec t = {.profile = &q, .accel = "tcg", .cpus = 1, .kernel = kernel, .rootfs = root,
                                .disk = "/d/b/disk", .control = "/c2", .qmp = "/q2", .console = "/o2",
                                .program = "/p2", .tsc_khz = 2300001, .ports = &port, .n_ports = 1,
                                .incoming = true};
    th_autofree char *one = th_template_key(&s, "/bin/sh"), *two = th_template_key(&t, "/bin/sh");
    assert_string_equal(one, two);
    for (int i = 0; i < 6; i++) {
        struct th_profile other = p;
        struct th_machine_spec u = s;
        u.profile = &other;
        other.memory_mb += i == 0;
        other.disk_gb += i == 1;
        u.cpus += i == 2;
        u.tsc_khz = i == 3 ? 0 : u.tsc_khz;
        u.initramfs = i == 4 ? root : NULL;
        if (i == 5) { /* another file of the same name */
            put("root", "r2");
        }
        th_autofree char *key = th_template_key(&u, "/bin/sh");
        assert_string_not_equal(key, one);
    }
}

static void make(const char *key, const char *text)
{
    struct th_template_maker m = TH_TEMPLATE_MAKER_INIT;
    assert_int_equal(th_template_begin(cache, key, th_tsc_khz(), &m, NULL), 0);
    assert_int_equal(write(m.fd, text, strlen(text)), strlen(text));
    th_template_finish(&m);
    assert_int_equal(th_template_end(&m, NULL), 0);
}

static int use(const char *key, struct th_err *err)
{
    TH_AUTO_TEMPLATE struct th_template t = TH_TEMPLATE_INIT;
    int r = th_template_open(cache, key, &t, err);
    return r == 1 ? th_template_checked(&t, err) < 0 ? -1 : 1 : r;
}

static void what_was_made_is_found_and_damage_is_noticed(void **state)
{
    (void)state;
    assert_int_equal(use("k1", NULL), 0);
    make("k1", "the state of a machine");
    assert_int_equal(use("k1", NULL), 1);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    put("templates/k1/state", "the state of b machine");
    assert_int_equal(use("k1", &err), -1);
    assert_int_equal(err.reason, TH_R_DIGEST_MISMATCH);
    put("templates/k1/state", "the state of a mac");
    assert_int_equal(use("k1", NULL), -1);
    put("templates/k1/info.json", "{\"made_ms\":1");
    assert_true(use("k1", NULL) < 0);
    th_autofree char *info = path_in("templates/k1/info.json");
    assert_int_equal(unlink(info), 0);
    assert_true(use("k1", NULL) < 0);
    make("k1", "the state of another machine"); /* in its place */
    assert_int_equal(use("k1", NULL), 1);
    th_template_drop(cache, "k1");
    assert_int_equal(use("k1", NULL), 0);
}

static void one_at_a_time_and_nothing_half_made_is_left(void **state)
{
    (void)state;
    struct th_template_maker m = TH_TEMPLATE_MAKER_INIT, n = TH_TEMPLATE_MAKER_INIT;
    assert_int_equal(th_template_begin(cache, "k1", 1, &m, NULL), 0);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_template_begin(cache, "k2", 1, &n, &err), -TH_R_LOCKED);
    assert_int_equal(write(m.fd, "x", 1), 1);
    assert_int_equal(th_template_end(&m, NULL), 0); /* never finished */
    assert_int_equal(use("k1", NULL), 0);
    th_autofree char *part = path_in("templates/part");
    assert_false(th_io_exists(part));
    make("k2", "y");
    assert_int_equal(use("k2", NULL), 1);
}

static void few_are_kept_and_a_purge_removes_all(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        th_autofree char *key = th_xasprintf("k%d", i);
        make(key, key);
        /* an hour apart, so that the order does not hang on the clock's steps */
        th_autofree char *info = th_path_joinf(cache, "templates/%s/info.json", key);
        struct timespec ts[2];
        (void)clock_gettime(CLOCK_REALTIME, &ts[0]);
        ts[0].tv_sec -= 3600 * (9 - i);
        ts[1] = ts[0];
        assert_int_equal(utimensat(AT_FDCWD, info, ts, 0), 0);
    }
    int n = 0;
    for (int i = 0; i < 8; i++) {
        th_autofree char *dir = th_path_joinf(cache, "templates/k%d", i);
        n += th_io_exists(dir);
        assert_true(i != 7 || th_io_exists(dir));
    }
    assert_int_equal(n, 4);
    assert_int_equal(th_template_purge(cache, NULL), 0);
    assert_int_equal(use("k7", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_key_knows_the_machine_and_not_the_profile, make_cache,
                                        remove_cache),
        cmocka_unit_test_setup_teardown(what_was_made_is_found_and_damage_is_noticed, make_cache,
                                        remove_cache),
        cmocka_unit_test_setup_teardown(one_at_a_time_and_nothing_half_made_is_left, make_cache,
                                        remove_cache),
        cmocka_unit_test_setup_teardown(few_are_kept_and_a_purge_removes_all, make_cache, remove_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
