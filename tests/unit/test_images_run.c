/* RUN steps as real containers: needs root, crun and a static busybox, else skipped.
 *
 * The test runs in a mount namespace of its own; on hosts with cgroups v1 beside an empty v2, crun
 * refuses to start while the v2 folder is mounted, so that is taken away there. */
#include "images/builder.h"
#include "base/io.h"
#include "base/proc.h"
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <cmocka.h>

static char top[64];
static struct th_images *store;
static struct th_build_runner runner;
static struct th_buf output;

static int setup(void **state)
{
    th_autofree char *busybox = th_proc_find("busybox"), *crun = th_proc_find("crun");
    th_autobuf struct th_buf bin = TH_BUF_INIT;
    (void)state;
    if (geteuid() != 0 || !busybox || !crun || unshare(CLONE_NEWNS) < 0) {
        return 0;
    }
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    (void)umount2("/sys/fs/cgroup/unified", MNT_DETACH);
    (void)snprintf(top, sizeof(top), "/tmp/th-run-XXXXXX");
    if (!mkdtemp(top)) {
        return -1;
    }
    th_autofree char *dir = th_path_join(top, "store"), *state_dir = th_path_join(top, "crun");
    th_autofree char *ctx = th_path_join(top, "ctx"), *to = th_path_join(top, "ctx/busybox");
    struct th_runner_crun_opts o = {.state_dir = state_dir};
    if (th_io_mkdir_p(state_dir, 0700, NULL) < 0 || th_io_mkdir_p(ctx, 0755, NULL) < 0 ||
        th_io_read_file(busybox, 16 << 20, &bin, NULL) < 0 ||
        th_io_write_file(to, bin.p, bin.n, 0755, NULL) < 0 ||
        th_images_open(dir, 0, &store, NULL) < 0) {
        return -1;
    }
    return th_runner_crun_new(&o, &runner, NULL);
}

static int teardown(void **state)
{
    (void)state;
    if (store) {
        th_runner_crun_free(&runner);
        th_images_close(store);
        th_buf_done(&output);
        return th_io_rm_rf(top, NULL);
    }
    return 0;
}

static void on_event(void *arg, const struct th_build_event *e)
{
    (void)arg;
    if (e->kind == TH_BUILD_OUTPUT) {
        th_buf_printf(&output, "%s\n", e->text);
    }
}

#define BASE                                                                                       \
    "FROM scratch\nCOPY busybox /bin/busybox\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n"

static int build(const char *text, struct th_build_result *res, struct th_err *err)
{
    th_autofree char *ctx = th_path_join(top, "ctx");
    const char *const tags[] = {"run:1", NULL};
    const char *const args[] = {"GREETING=hi there", NULL};
    struct th_build_opts o = {.context_dir = ctx,
                              .dockerfile_text = text,
                              .tags = tags,
                              .build_args = args,
                              .runner = &runner,
                              .event = on_event};
    th_buf_clear(&output);
    return th_build(store, &o, res, err);
}

static void steps_run_in_the_image(void **state)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_build_result res;
    (void)state;
    if (!store) {
        skip();
    }
    int r = build(BASE "ARG GREETING\nENV E=v\nWORKDIR /w\n"
                       "RUN echo \"$GREETING $E $PWD $HOME\"; /bin/busybox cat /etc/hosts; "
                       "/bin/busybox ip addr show lo; echo x > made\n"
                       "RUN <<EOF\necho second\n/bin/busybox rm made\necho y > kept\nEOF\n"
                       "USER 12:13\nRUN /bin/busybox id -u; /bin/busybox id -g\n", &res, &err);
    if (r < 0) {
        fail_msg("%s\n%s", err.msg, th_buf_cstr(&output));
    }
    const char *out = th_buf_cstr(&output);
    assert_non_null(strstr(out, "hi there v /w /"));
    assert_non_null(strstr(out, "localhost"));
    assert_non_null(strstr(out, "UP"));
    assert_non_null(strstr(out, "second\n12\n13\n"));
    TH_AUTO(th_image) struct th_image *img = NULL;
    assert_int_equal(th_images_resolve(store, "run:1", &img, NULL), 0);
    assert_int_equal(img->n_layers, 4); /* busybox, /w, two steps; the last changed nothing */
    const char *fs = img->layers[3].fs;
    th_autofree char *made = th_path_join(fs, "w/made"), *kept = th_path_join(fs, "w/kept");
    th_autofree char *proc = th_path_join(img->layers[2].fs, "proc");
    th_autofree char *hosts = th_path_join(img->layers[2].fs, "etc");
    struct stat st;
    assert_int_equal(lstat(made, &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    assert_true(th_io_exists(kept));
    assert_false(th_io_exists(proc));
    assert_false(th_io_exists(hosts));
}

static void failing_steps_say_their_exit_code(void **state)
{
    static const struct {
        const char *step, *part;
    } cases[] = {{"RUN echo why; exit 3\n", "exit code: 3"},
                 {"RUN [\"/nothing\"]\n", "exit code: 127"},
                 {"RUN /bin/busybox sh -c 'kill -9 $$'; exit $?\n", "exit code: 137"}};
    (void)state;
    if (!store) {
        skip();
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_build_result res;
        th_autofree char *text = th_xasprintf("%s%s", BASE, cases[i].step);
        assert_int_equal(build(text, &res, &err), -TH_R_BUILD_FAILED);
        if (!strstr(err.msg, cases[i].part) || !strstr(err.msg, "Dockerfile:4")) {
            fail_msg("%s", err.msg);
        }
    }
}

static void cache_mounts_last_and_stay_out_of_the_layer(void **state)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_build_result res;
    (void)state;
    if (!store) {
        skip();
    }
    int r = build(BASE "RUN --mount=type=cache,target=/c echo one > /c/f\n"
                       "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t "
                       "/bin/busybox cat /c/f; echo x > /t/x\n"
                       "RUN --mount=target=/ctx /bin/busybox ls /ctx\n", &res, &err);
    if (r < 0) {
        fail_msg("%s\n%s", err.msg, th_buf_cstr(&output));
    }
    assert_string_equal(th_buf_cstr(&output), "one\nbusybox\n");
    TH_AUTO(th_image) struct th_image *img = NULL;
    assert_int_equal(th_images_resolve(store, "run:1", &img, NULL), 0);
    assert_int_equal(img->n_layers, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_run_in_the_image),
        cmocka_unit_test(failing_steps_say_their_exit_code),
        cmocka_unit_test(cache_mounts_last_and_stay_out_of_the_layer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
