/* The content store with archives and scratch builds: a store of its own for each test. */
#include "images/builder.h"
#include "images/registry.h"
#include "images/tar.h"
#include "base/io.h"
#include "base/json/json.h"
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mount.h>
#include <cmocka.h>

static char top[64];
static struct th_images *store;

static int setup(void **state)
{
    (void)state;
    (void)snprintf(top, sizeof(top), "/tmp/th-images-XXXXXX");
    if (!mkdtemp(top)) {
        return -1;
    }
    th_autofree char *dir = th_path_join(top, "store");
    return th_images_open(dir, geteuid() ? TH_IMAGES_NO_UNPACK : 0, &store, NULL);
}

static int teardown(void **state)
{
    (void)state;
    th_images_close(store);
    return th_io_rm_rf(top, NULL);
}

/* A docker archive as docker save before 25 wrote it. */
static void docker_archive(struct th_buf *out, const char *tag, const char *text, bool spoil)
{
    th_autobuf struct th_buf layer = TH_BUF_INIT;
    struct th_tar_writer w;
    th_tar_writer_init(&w, th_writer_buf(&layer));
    assert_int_equal(th_tar_write_file(&w, "etc/motd", 0644, text, strlen(text), NULL), 0);
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    char diff[TH_DIGEST_LEN];
    th_digest_of(spoil ? "x" : layer.p, spoil ? 1 : layer.n, diff);
    th_autofree char *config = th_xasprintf(
        "{\"architecture\":\"amd64\",\"os\":\"linux\",\"created\":\"2024-01-02T03:04:05Z\","
        "\"config\":{\"Cmd\":[\"/x\"],\"Env\":[\"A=b\"],\"User\":\"5:6\",\"WorkingDir\":\"/w\","
        "\"ExposedPorts\":{\"80/tcp\":{}},\"StopSignal\":\"SIGINT\"},"
        "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}", diff);
    th_autofree char *list = th_xasprintf(
        "[{\"Config\":\"abc.json\",\"RepoTags\":[\"%s\"],\"Layers\":[\"l1/layer.tar\"]}]", tag);
    th_tar_writer_init(&w, th_writer_buf(out));
    assert_int_equal(th_tar_write_file(&w, "l1/layer.tar", 0644, layer.p, layer.n, NULL), 0);
    assert_int_equal(th_tar_write_file(&w, "abc.json", 0644, config, strlen(config), NULL), 0);
    assert_int_equal(th_tar_write_file(&w, "manifest.json", 0644, list, strlen(list), NULL), 0);
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
}

static int load(const struct th_buf *b, struct th_strv *names, struct th_err *err)
{
    struct th_mem_reader m = {.p = b->p, .n = b->n};
    return th_images_load(store, th_reader_mem(&m), NULL, names, err);
}

static void archives_load_resolve_and_save(void **state)
{
    th_autobuf struct th_buf a = TH_BUF_INIT, saved = TH_BUF_INIT;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)state;
    docker_archive(&a, "motd:1", "hello", false);
    assert_int_equal(load(&a, &names, &err), 0);
    assert_string_equal(names.v[0], "docker.io/library/motd:1");
    TH_AUTO(th_image) struct th_image *img = NULL, *again = NULL;
    assert_int_equal(th_images_resolve(store, "motd:1", &img, NULL), 0);
    assert_string_equal(img->config.env.v[0], "A=b");
    assert_string_equal(img->config.user, "5:6");
    assert_string_equal(img->config.ports.v[0], "80/tcp");
    assert_string_equal(img->config.stop_signal, "SIGINT");
    char prefix[13];
    memcpy(prefix, img->id + 7, 12);
    prefix[12] = 0;
    assert_int_equal(th_images_resolve(store, prefix, &again, NULL), 0);
    assert_string_equal(again->id, img->id);
    const char *const refs[] = {"motd:1"};
    assert_int_equal(th_images_save(store, refs, 1, th_writer_buf(&saved), NULL), 0);
    assert_int_equal(th_images_remove(store, "motd:1", false, NULL, NULL, NULL), 0);
    struct th_images_usage u;
    assert_int_equal(th_images_du(store, &u, NULL), 0);
    assert_int_equal(u.blobs, 0);
    assert_int_equal(u.layers, 0);
    assert_int_equal(load(&saved, NULL, &err), 0); /* what we save, we read */
    th_image_free(again);
    again = NULL;
    assert_int_equal(th_images_resolve(store, "docker.io/library/motd:1", &again, NULL), 0);
    assert_string_equal(again->id, img->id);
}

static void oci_blob(struct th_tar_writer *w, const char *data, size_t n, char *ret_digest)
{
    th_digest_of(data, n, ret_digest);
    th_autofree char *name = th_xasprintf("blobs/sha256/%s", ret_digest + 7);
    assert_int_equal(th_tar_write_file(w, name, 0644, data, n, NULL), 0);
}

/* An OCI archive in which two descriptors, with a name each, point to the same manifest. */
static void one_manifest_of_an_oci_archive_has_two_names(void **state)
{
    th_autobuf struct th_buf a = TH_BUF_INIT, layer = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_tar_writer w;
    char ld[TH_DIGEST_LEN], cd[TH_DIGEST_LEN], md[TH_DIGEST_LEN];
    (void)state;
    th_tar_writer_init(&w, th_writer_buf(&layer));
    assert_int_equal(th_tar_write_file(&w, "etc/motd", 0644, "two", 3, NULL), 0);
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    th_tar_writer_init(&w, th_writer_buf(&a));
    oci_blob(&w, layer.p, layer.n, ld);
    th_autofree char *config = th_xasprintf(
        "{\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}", ld);
    oci_blob(&w, config, strlen(config), cd);
    th_autofree char *manifest = th_xasprintf(
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"%s\"},\"layers\":[{\"digest\":\"%s\"}]}", cd, ld);
    oci_blob(&w, manifest, strlen(manifest), md);
    th_autofree char *index = th_xasprintf(
        "{\"schemaVersion\":2,\"manifests\":["
        "{\"digest\":\"%s\",\"annotations\":{\"io.containerd.image.name\":\"r.example/one:1\"}},"
        "{\"digest\":\"%s\",\"annotations\":{\"io.containerd.image.name\":\"r.example/two:2\"}}]}",
        md, md);
    assert_int_equal(th_tar_write_file(&w, "index.json", 0644, index, strlen(index), NULL), 0);
    assert_int_equal(th_tar_write_file(&w, "oci-layout", 0644, "{}", 2, NULL), 0);
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    assert_int_equal(load(&a, &names, &err), 0);
    assert_int_equal(names.n, 2);
    TH_AUTO(th_image) struct th_image *one = NULL, *two = NULL;
    assert_int_equal(th_images_resolve(store, "r.example/one:1", &one, NULL), 0);
    assert_int_equal(th_images_resolve(store, "r.example/two:2", &two, NULL), 0);
    assert_string_equal(one->id, two->id);
}

static void bad_archives_leave_nothing_behind(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        th_autobuf struct th_buf a = TH_BUF_INIT;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (i == 0) {
            docker_archive(&a, "x:1", "t", true);
            if (geteuid()) {
                continue; /* diff ids are checked by unpacking */
            }
        } else if (i == 1) {
            docker_archive(&a, "x:1", "t", false);
            a.n = 700;
        } else if (i == 2) {
            th_buf_puts(&a, "this is no archive at all");
        }
        assert_true(load(&a, NULL, &err) < 0);
        assert_true(err.reason == TH_R_BAD_ARCHIVE || err.reason == TH_R_DIGEST_MISMATCH);
        assert_non_null(err.hint);
        struct th_images_usage u;
        assert_int_equal(th_images_du(store, &u, NULL), 0);
        assert_int_equal(u.images + u.blobs + u.layers, 0);
    }
}

static void leases_keep_content(void **state)
{
    th_autobuf struct th_buf a = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_image) struct th_image *img = NULL, *held = NULL;
    (void)state;
    docker_archive(&a, "x:1", "t", false);
    assert_int_equal(load(&a, NULL, NULL), 0);
    assert_int_equal(th_images_resolve(store, "x:1", &img, NULL), 0);
    assert_int_equal(th_images_lease(store, "pod/c1", img->id, NULL), 0);
    assert_int_equal(th_images_remove(store, "x:1", false, NULL, NULL, &err), -TH_R_CONFLICT);
    assert_int_equal(th_images_remove(store, "x:1", true, NULL, NULL, NULL), 0);
    th_err_done(&err);
    assert_int_equal(th_images_resolve(store, "x:1", &held, &err), -TH_R_NO_IMAGE);
    assert_int_equal(th_images_resolve(store, img->id, &held, NULL), 0);
    struct th_images_gc_opts all = {.drop_untagged = true};
    assert_int_equal(th_images_gc(store, &all, NULL, NULL), 0);
    assert_true(th_images_has_blob(store, img->layers[0].digest));
    assert_int_equal(th_images_unlease(store, "pod/c1", NULL), 0);
    uint64_t freed = 0;
    assert_int_equal(th_images_gc(store, &all, &freed, NULL), 0);
    assert_true(freed > 0);
    assert_false(th_images_has_blob(store, img->layers[0].digest));
}

static void sessions_hold_off_collection(void **state)
{
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    char digest[TH_DIGEST_LEN];
    struct th_images_gc_opts none = {0};
    (void)state;
    assert_int_equal(th_images_session_begin(store, &ss, NULL), 0);
    assert_int_equal(th_images_put_bytes(ss, "abc", 3, digest, NULL), 0);
    assert_int_equal(th_images_gc(store, &none, NULL, NULL), 0);
    assert_true(th_images_has_blob(store, digest));
    th_images_session_end(ss);
    ss = NULL;
    assert_false(th_images_has_blob(store, digest)); /* nothing named it */
}

static void tags_move_between_images(void **state)
{
    th_autobuf struct th_buf a = TH_BUF_INIT, b = TH_BUF_INIT;
    TH_AUTO(th_image) struct th_image *x = NULL, *y = NULL;
    struct th_image **all = NULL;
    size_t n = 0;
    (void)state;
    docker_archive(&a, "x:1", "one", false);
    docker_archive(&b, "y:1", "two", false);
    assert_int_equal(load(&a, NULL, NULL), 0);
    assert_int_equal(load(&b, NULL, NULL), 0);
    assert_int_equal(th_images_tag(store, "y:1", "x:1", NULL), 0);
    assert_int_equal(th_images_resolve(store, "x:1", &x, NULL), 0);
    assert_int_equal(th_images_resolve(store, "y:1", &y, NULL), 0);
    assert_string_equal(x->id, y->id);
    assert_int_equal(x->names.n, 2);
    assert_int_equal(th_images_list(store, &all, &n, NULL), 0);
    assert_int_equal(n, 2); /* the old one stays, without a name */
    th_image_list_free(all, n);
    struct th_images_gc_opts opts = {.drop_untagged = true};
    assert_int_equal(th_images_gc(store, &opts, NULL, NULL), 0);
    assert_int_equal(th_images_list(store, &all, &n, NULL), 0);
    assert_int_equal(n, 1);
    th_image_list_free(all, n);
}

static void unreachable_registries_are_offline(void **state)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_pull_opts o = {.timeout_ms = 2000};
    (void)state;
    assert_int_equal(th_images_pull(store, "127.0.0.1:1/none:1", &o, NULL, &err), -TH_R_OFFLINE);
    assert_non_null(err.hint);
}

/* ---- builds without RUN (root: they mount) ---- */

static void put_file(const char *rel, const char *text)
{
    th_autofree char *p = th_path_join(top, rel);
    th_autofree char *dir = th_xstrndup(p, (size_t)(th_path_base(p) - p));
    assert_true(th_io_mkdir_p(dir, 0755, NULL) >= 0);
    assert_int_equal(th_io_write_file(p, text, strlen(text), 0644, NULL), 0);
}

static int build(const char *dockerfile, struct th_build_result *res, struct th_err *err)
{
    th_autofree char *ctx = th_path_join(top, "ctx");
    const char *const tags[] = {"built:1", NULL};
    struct th_build_opts o = {.context_dir = ctx, .dockerfile_text = dockerfile, .tags = tags};
    return th_build(store, &o, res, err);
}

static void scratch_builds_copy_and_cache(void **state)
{
    static const char text[] =
        "FROM scratch AS one\nWORKDIR /app\nCOPY --chmod=600 a.txt sub/ ./d/\nCOPY *.md /docs/\n"
        "COPY <<EOF /etc/conf\nv=$V\nEOF\nFROM scratch\nARG V=7\nENV P=/x:$V\n"
        "COPY --from=one /app /copied\nCOPY --chown=3:4 . /all\nLABEL l=\"two words\"\n"
        "EXPOSE 80 53/udp\nENTRYPOINT [\"/e\"]\nCMD [\"c\"]\nUSER 65532\n";
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_build_result first, second;
    (void)state;
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) {
        skip();
    }
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    put_file("ctx/a.txt", "a");
    put_file("ctx/sub/b.txt", "b");
    put_file("ctx/r.md", "r");
    put_file("ctx/secret", "s");
    put_file("ctx/.dockerignore", "secret\n");
    if (build(text, &first, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    TH_AUTO(th_image) struct th_image *img = NULL;
    assert_int_equal(th_images_resolve(store, "built:1", &img, NULL), 0);
    assert_int_equal(img->n_layers, 2);
    assert_string_equal(img->config.env.v[0], "P=/x:7");
    assert_string_equal(img->config.labels.v[0], "l=two words");
    assert_string_equal(img->config.user, "65532");
    th_autofree char *b = th_path_join(img->layers[0].fs, "copied/d/b.txt");
    th_autofree char *all = th_path_join(img->layers[1].fs, "all/sub/b.txt");
    th_autofree char *secret = th_path_join(img->layers[1].fs, "all/secret");
    assert_true(th_io_exists(b));
    assert_true(th_io_exists(all));
    assert_false(th_io_exists(secret));
    assert_int_equal(build(text, &second, &err), 0);
    assert_int_equal(second.cached_steps, 6);
    put_file("ctx/sub/b.txt", "changed");
    assert_int_equal(build(text, &second, &err), 0);
    assert_int_equal(second.cached_steps, 1); /* WORKDIR: all else is on top of it */
}

static void build_faults_are_told(void **state)
{
    static const struct {
        const char *text;
        enum th_reason reason;
        const char *part;
    } cases[] = {
        {"FROM nowhere:1\n", TH_R_NO_IMAGE, "base image nowhere:1"},
        {"FROM golang:1.16\n", TH_R_NO_IMAGE, "Dockerfile:1"},
        {"FROM scratch\nCOPY missing /\n", TH_R_BUILD_FAILED, "\"/missing\": not found"},
        {"FROM scratch\nCOPY ../../../etc/passwd /\n", TH_R_BUILD_FAILED, "not found"},
        {"FROM scratch\nRUN x\n", TH_R_UNSUPPORTED, "Dockerfile:2"},
        {"FROM scratch\nADD https://x/y /\n", TH_R_UNSUPPORTED, "URL"},
        {"FROM scratch\nEXPOSE nine\n", TH_R_DOCKERFILE, "Invalid containerPort: nine"},
    };
    (void)state;
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) {
        skip();
    }
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    put_file("ctx/a", "a");
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_build_result res;
        assert_true(build(cases[i].text, &res, &err) < 0);
        assert_int_equal(err.reason, cases[i].reason);
        if (!strstr(err.msg, cases[i].part)) {
            fail_msg("%s", err.msg);
        }
    }
}

static void users_are_looked_up_in_the_image(void **state)
{
    uint32_t uid = 0, gid = 0, *gids = NULL;
    size_t n = 0;
    char *home = NULL;
    (void)state;
    put_file("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/var/www:/x\n");
    put_file("root/etc/group", "root:x:0:\nweb:x:34:\nextra:x:50:bob,web\n");
    th_autofree char *root = th_path_join(top, "root");
    assert_int_equal(th_image_user(root, "web", &uid, &gid, &gids, &n, &home, NULL), 0);
    assert_int_equal(uid, 33);
    assert_int_equal(gid, 34);
    assert_int_equal(n, 1);
    assert_int_equal(gids[0], 50);
    assert_string_equal(home, "/var/www");
    free(gids);
    free(home);
    assert_int_equal(th_image_user(root, "1000:extra", &uid, &gid, NULL, NULL, NULL, NULL), 0);
    assert_int_equal(uid, 1000);
    assert_int_equal(gid, 50);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_image_user(root, "nosuch", &uid, &gid, NULL, NULL, NULL, &err),
                     -TH_R_INVALID);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(archives_load_resolve_and_save),
        T(one_manifest_of_an_oci_archive_has_two_names),
        T(bad_archives_leave_nothing_behind),
        T(leases_keep_content),
        T(sessions_hold_off_collection),
        T(tags_move_between_images),
        T(unreachable_registries_are_offline),
        T(scratch_builds_copy_and_cache),
        T(build_faults_are_told),
        T(users_are_looked_up_in_the_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
