/* base/io: files, trees, locks, paths and Unix sockets, in a folder of their own. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char root[64];

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof(root), "/tmp/thimble-test-io.XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return th_io_rm_rf(root, NULL);
}

static void put(const char *path, const char *text)
{
    assert_int_equal(th_io_write_file(path, text, strlen(text), 0644, NULL), 0);
}

static char *get(const char *path)
{
    struct th_buf b = TH_BUF_INIT;
    assert_int_equal(th_io_read_file(path, 1 << 20, &b, NULL), 0);
    return th_buf_steal(&b, NULL);
}

static void reading_appends_up_to_exactly_the_limit(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(root, "f");
    put(path, "12345");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, ">");
    assert_int_equal(th_io_read_file(path, 5, &b, NULL), 0);
    assert_string_equal(th_buf_cstr(&b), ">12345");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_io_read_file(path, 4, &b, &err), -TH_R_TOO_LARGE);
    assert_non_null(strstr(err.msg, path));
    assert_string_equal(th_buf_cstr(&b), ">12345");
    put(path, "");
    assert_int_equal(th_io_read_file(path, 0, &b, NULL), 0);
    assert_int_equal(b.n, 6);
}

static void files_without_a_size_are_read_to_the_end(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_int_equal(th_io_read_file("/proc/self/maps", 1 << 20, &b, NULL), 0);
    assert_true(b.n > 500);
    assert_int_equal(b.p[b.n - 1], '\n');
    assert_int_equal(th_io_read_file("/proc/self/maps", 100, &b, NULL), -TH_R_TOO_LARGE);
}

static void what_is_missing_is_not_found(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(root, "none/x");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_io_read_file(path, 10, &b, &err), -TH_R_NOT_FOUND);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.msg, "none/x"));
    assert_int_equal(th_io_write_atomic(path, "", 0, 0600, NULL), -TH_R_NOT_FOUND);
    th_autostrv struct th_strv l = TH_STRV_INIT;
    assert_int_equal(th_io_list(path, &l, NULL), -TH_R_NOT_FOUND);
}

static void atomic_writes_replace_and_leave_nothing_behind(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(root, "state.json");
    assert_int_equal(th_io_write_atomic(path, "one", 3, 0640, NULL), 0);
    assert_int_equal(th_io_write_atomic(path, "second", 6, 0600, NULL), 0);
    th_autofree char *text = get(path);
    assert_string_equal(text, "second");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    /* a folder in the way makes the rename fail; the temporary file must go */
    th_autofree char *dir = th_path_join(root, "dir");
    assert_int_equal(th_io_mkdir_p(dir, 0755, NULL), 0);
    assert_true(th_io_write_atomic(dir, "x", 1, 0600, NULL) < 0);
    th_autostrv struct th_strv l = TH_STRV_INIT;
    assert_int_equal(th_io_list(root, &l, NULL), 0);
    th_autofree char *names = th_strv_join(&l, " ");
    assert_string_equal(names, "dir state.json");
}

static void mkdir_p_makes_all_levels_and_takes_existing_ones(void **state)
{
    (void)state;
    th_autofree char *deep = th_path_join(root, "a//b/c/");
    assert_int_equal(th_io_mkdir_p(deep, 0755, NULL), 0);
    assert_int_equal(th_io_mkdir_p(deep, 0755, NULL), 0);
    assert_true(th_io_is_dir(deep));
    th_autofree char *file = th_path_join(root, "a/file");
    put(file, "");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_true(th_io_mkdir_p(file, 0755, &err) < 0);
    th_autofree char *below = th_path_join(file, "x");
    assert_true(th_io_mkdir_p(below, 0755, NULL) < 0);
    assert_true(th_io_exists(file));
    assert_false(th_io_is_dir(file));
    assert_false(th_io_exists(below));
}

static void removal_does_not_follow_links(void **state)
{
    (void)state;
    th_autofree char *keep = th_path_join(root, "keep/file");
    th_autofree char *keep_dir = th_path_join(root, "keep");
    th_autofree char *dir = th_path_join(root, "gone/sub");
    th_autofree char *top = th_path_join(root, "gone");
    assert_int_equal(th_io_mkdir_p(keep_dir, 0755, NULL), 0);
    assert_int_equal(th_io_mkdir_p(dir, 0755, NULL), 0);
    put(keep, "precious");
    th_autofree char *link1 = th_path_join(dir, "to-dir");
    th_autofree char *link2 = th_path_join(top, "to-file");
    assert_int_equal(symlink(keep_dir, link1), 0);
    assert_int_equal(symlink(keep, link2), 0);
    th_autofree char *link3 = th_path_join(root, "link");
    assert_int_equal(symlink(keep_dir, link3), 0);
    assert_int_equal(th_io_rm_rf(top, NULL), 0);
    assert_false(th_io_exists(top));
    assert_int_equal(th_io_rm_rf(link3, NULL), 0);
    th_autofree char *text = get(keep);
    assert_string_equal(text, "precious");
    assert_int_equal(th_io_rm_rf(top, NULL), 0); /* missing is fine */
    assert_int_equal(th_io_rm_rf(keep, NULL), 0);
    assert_false(th_io_exists(keep));
}

static void removal_copes_with_depth_and_denied_folders(void **state)
{
    (void)state;
    th_autofree char *top = th_path_join(root, "deep");
    assert_int_equal(mkdir(top, 0755), 0);
    int dir = open(top, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(mkdirat(dir, "d", 0755), 0);
        if (i % 500 == 0) {
            int f = openat(dir, "f", O_CREAT | O_WRONLY, 0600);
            assert_true(f >= 0);
            (void)close(f);
        }
        int next = openat(dir, "d", O_RDONLY | O_DIRECTORY);
        assert_true(next >= 0);
        (void)close(dir);
        dir = next;
    }
    (void)close(dir);
    th_autofree char *denied = th_path_join(top, "denied/inner");
    th_autofree char *denied_top = th_path_join(top, "denied");
    assert_int_equal(th_io_mkdir_p(denied, 0755, NULL), 0);
    assert_int_equal(chmod(denied_top, 0), 0);
    assert_int_equal(th_io_rm_rf(top, NULL), 0);
    assert_false(th_io_exists(top));
}

static void removal_refuses_mount_points(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_io_rm_rf("/proc", &err), -TH_R_IO);
    assert_non_null(strstr(err.msg, "mount point"));
    assert_true(th_io_exists("/proc/self"));
}

static void locks_exclude_and_can_be_waited_for(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(root, "lock");
    int fd;
    assert_int_equal(th_io_lock(path, 0, &fd, NULL), 0);
    int other = -7;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_io_lock(path, 0, &other, &err), -TH_R_LOCKED);
    assert_int_equal(th_io_lock(path, 5, &other, &err), -TH_R_LOCKED);
    assert_int_equal(other, -7);
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(fd); /* the lock belongs to the open file, which the parent still has */
        int mine;
        _exit(th_io_lock(path, 20000, &mine, NULL) == 0 ? 0 : 1);
    }
    (void)close(fd);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(th_io_lock(path, 0, &fd, NULL), 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    (void)close(fd);
}

static void paths_join_and_split(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b, *joined;
    } cases[] = {
        {"a", "b", "a/b"},     {"a/", "b", "a/b"}, {"a", "/b", "a/b"},
        {"a//", "//b", "a/b"}, {"/", "b", "/b"},   {"", "b", "b"},
        {"a", "", "a"},        {"/", "", "/"},     {"/x/y", "z/w", "/x/y/z/w"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *s = th_path_join(cases[i].a, cases[i].b);
        assert_string_equal(s, cases[i].joined);
    }
    th_autofree char *f = th_path_joinf("/run", "pod-%d.%s", 7, "sock");
    assert_string_equal(f, "/run/pod-7.sock");
    assert_string_equal(th_path_base("/a/b"), "b");
    assert_string_equal(th_path_base("b"), "b");
    assert_string_equal(th_path_base("/a/"), "");
}

static void escaping_names_are_seen(void **state)
{
    (void)state;
    static const struct {
        const char *rel;
        bool inside;
    } cases[] = {
        {"a/b", true},   {"", true},    {".", true},      {"a/..b", true},
        {"...", true},   {"..", false}, {"../x", false},  {"a/../b", false},
        {"a/..", false}, {"/a", false}, {"a//..", false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_int_equal(th_path_is_inside(cases[i].rel), cases[i].inside);
    }
}

static void converse(const char *path)
{
    int listener = th_io_unix_listen(path, 0600, 8, NULL);
    assert_true(listener >= 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_io_unix_listen(path, 0600, 8, &err), -TH_R_ALREADY_RUNNING);
    int client = th_io_unix_connect(path, NULL);
    assert_true(client >= 0);
    int server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    assert_int_equal(th_io_write_all(client, "ping", 4, NULL), 0);
    (void)close(client);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_int_equal(th_io_read_fd(server, 100, &b, NULL), 0);
    (void)close(server);
    /* the probes of the refused second listener came first in the queue or not at all */
    (void)close(listener);
    assert_int_equal(th_io_unix_connect(path, NULL), -TH_R_UNAVAILABLE);
    listener = th_io_unix_listen(path, 0660, 8, NULL); /* takes over what was left behind */
    assert_true(listener >= 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    (void)close(listener);
}

static void unix_sockets_at_short_and_long_paths(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(root, "s.sock");
    converse(path);
    th_autofree char *dir =
        th_path_join(root, "a-folder-with-a-name-that-is-quite-long-for-a-folder/and-another-one-"
                           "that-goes-on-and-on/until-the-limit-of-sun-path-is-passed-by-far");
    assert_int_equal(th_io_mkdir_p(dir, 0755, NULL), 0);
    th_autofree char *long_path = th_path_join(dir, "s.sock");
    assert_true(strlen(long_path) > 108);
    converse(long_path);
    assert_int_equal(th_io_unix_connect("/nonexistent/x.sock", NULL), -TH_R_NOT_FOUND);
}

static void lists_are_sorted(void **state)
{
    (void)state;
    static const char *const names[] = {"b", "a", ".hidden", "C"};
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        th_autofree char *path = th_path_join(root, names[i]);
        put(path, "");
    }
    th_autostrv struct th_strv l = TH_STRV_INIT;
    assert_int_equal(th_io_list(root, &l, NULL), 0);
    th_autofree char *joined = th_strv_join(&l, " ");
    assert_string_equal(joined, ".hidden C a b");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(reading_appends_up_to_exactly_the_limit),
        TEST(files_without_a_size_are_read_to_the_end),
        TEST(what_is_missing_is_not_found),
        TEST(atomic_writes_replace_and_leave_nothing_behind),
        TEST(mkdir_p_makes_all_levels_and_takes_existing_ones),
        TEST(removal_does_not_follow_links),
        TEST(removal_copes_with_depth_and_denied_folders),
        TEST(removal_refuses_mount_points),
        TEST(locks_exclude_and_can_be_waited_for),
        TEST(paths_join_and_split),
        TEST(escaping_names_are_seen),
        TEST(unix_sockets_at_short_and_long_paths),
        TEST(lists_are_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
