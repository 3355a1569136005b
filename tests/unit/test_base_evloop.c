/* base/evloop: descriptors, timers on a simulated clock, children, signals, posts, removal. */
#include "base/clock.h"
#include "base/evloop.h"
#include "base/io.h"
#include "base/proc.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <cmocka.h>

static char trace[256];

static void note(const char *what)
{
    size_t n = strlen(trace);
    (void)snprintf(trace + n, sizeof(trace) - n, "%s ", what);
}

static int set_up(void **state)
{
    trace[0] = '\0';
    *state = th_ev_new();
    return 0;
}

static int tear_down(void **state)
{
    th_ev_free(*state);
    th_clock_real();
    return 0;
}

static void read_all(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    char text[64];
    ssize_t n = read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    note(text);
    if (events & EPOLLHUP) {
        note("hup");
    }
    th_ev_stop(arg, 5);
}

static void a_readable_descriptor_calls_back(void **state)
{
    struct th_ev *ev = *state;
    int p[2];
    assert_int_equal(pipe(p), 0);
    struct th_ev_src *s = th_ev_add_fd(ev, p[0], EPOLLIN, read_all, ev);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "");
    assert_int_equal(th_io_write_all(p[1], "hi", 2, NULL), 0);
    assert_int_equal(th_ev_run(ev), 5);
    assert_string_equal(trace, "hi ");
    th_ev_set_events(s, 0);
    assert_int_equal(th_io_write_all(p[1], "no", 2, NULL), 0);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "hi ");
    th_ev_remove(s);
    th_ev_remove(NULL);
    (void)close(p[0]);
    (void)close(p[1]);
}

static void count_down(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)fd;
    assert_true(events & EPOLLIN);
    if (--*(int *)arg == 0) {
        th_ev_remove(src);
    }
}

static void files_are_always_ready(void **state)
{
    struct th_ev *ev = *state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int left = 3;
    int left_file = 2;
    (void)th_ev_add_fd(ev, fd, EPOLLIN, count_down, &left);
    (void)th_ev_add_fd(ev, file, EPOLLIN, count_down, &left_file);
    for (int i = 0; i < 5; i++) {
        th_ev_run_once(ev, 0);
    }
    assert_int_equal(left, 0);
    assert_int_equal(left_file, 0);
    (void)close(fd);
    (void)close(file);
}

static void note_timer(struct th_ev_src *src, void *arg)
{
    (void)src;
    note(arg);
}

static void timers_fire_in_the_order_of_their_moments(void **state)
{
    struct th_ev *ev = *state;
    th_clock_simulate(0);
    (void)th_ev_add_timer(ev, 300, 0, note_timer, "c");
    (void)th_ev_add_timer(ev, 100, 0, note_timer, "a1");
    (void)th_ev_add_timer(ev, 100, 0, note_timer, "a2");
    (void)th_ev_add_timer(ev, 200, 0, note_timer, "b");
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "");
    th_clock_advance_ms(99);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "");
    th_clock_advance_ms(1);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "a1 a2 ");
    th_clock_advance_ms(1000);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "a1 a2 b c ");
}

static void periodic_timers_repeat_without_a_burst(void **state)
{
    struct th_ev *ev = *state;
    th_clock_simulate(0);
    struct th_ev_src *t = th_ev_add_timer(ev, 10, 100, note_timer, "t");
    th_clock_advance_ms(10);
    th_ev_run_once(ev, 0);
    th_clock_advance_ms(100);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "t t ");
    th_clock_advance_ms(5000);
    th_ev_run_once(ev, 0);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "t t t ");
    th_ev_timer_reset(t, 7);
    th_clock_advance_ms(7);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "t t t t ");
    th_ev_remove(t);
    th_clock_advance_ms(1000);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "t t t t ");
}

static int rearms;
static void rearm_twice(struct th_ev_src *src, void *arg)
{
    note(arg);
    if (rearms++ < 2) {
        th_ev_timer_reset(src, 0);
    }
}

static void a_one_shot_timer_may_rearm_itself(void **state)
{
    struct th_ev *ev = *state;
    th_clock_simulate(0);
    rearms = 0;
    (void)th_ev_add_timer(ev, 0, 0, rearm_twice, "r");
    th_ev_run_once(ev, 0); /* a zero delay waits for the next turn, or nobody else would get one */
    assert_string_equal(trace, "r ");
    for (int i = 0; i < 5; i++) {
        th_ev_run_once(ev, 0);
    }
    assert_string_equal(trace, "r r r ");
}

static void stop_loop(struct th_ev_src *src, void *arg)
{
    (void)src;
    th_ev_stop(arg, 1);
}

static void real_timers_end_a_blocking_wait(void **state)
{
    struct th_ev *ev = *state;
    int64_t begin = th_mono_ms();
    (void)th_ev_add_timer(ev, 20, 0, stop_loop, ev);
    assert_int_equal(th_ev_run(ev), 1);
    assert_true(th_mono_ms() - begin >= 20);
}

static void *move_clock(void *arg)
{
    (void)arg;
    th_clock_advance_ms(60000);
    return NULL;
}

static void moving_the_clock_wakes_the_loop(void **state)
{
    struct th_ev *ev = *state;
    th_clock_simulate(0);
    (void)th_ev_add_timer(ev, 60000, 0, stop_loop, ev);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, move_clock, NULL), 0);
    assert_int_equal(th_ev_run(ev), 1);
    assert_int_equal(pthread_join(t, NULL), 0);
}

static int exit_code;
static void on_child(struct th_ev_src *src, pid_t pid, int status, void *arg)
{
    (void)src;
    (void)pid;
    exit_code = WEXITSTATUS(status);
    th_ev_stop(arg, 0);
}

static void a_child_is_reaped_once(void **state)
{
    struct th_ev *ev = *state;
    pid_t pid = th_proc_start(
        &(struct th_proc_opts){.argv = (const char *const[]){"/bin/sh", "-c", "exit 42", NULL},
                               .stdin_fd = -1,
                               .stdout_fd = -1,
                               .stderr_fd = -1},
        NULL);
    assert_true(pid > 0);
    (void)th_ev_add_child(ev, pid, on_child, ev);
    assert_int_equal(th_ev_run(ev), 0);
    assert_int_equal(exit_code, 42);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
}

static void on_signal(struct th_ev_src *src, int signo, void *arg)
{
    (void)src;
    note(signo == SIGUSR1 ? "usr1" : "other");
    th_ev_stop(arg, 9);
}

static void signals_arrive_in_the_loop(void **state)
{
    struct th_ev *ev = *state;
    sigset_t set;
    sigset_t old;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &set, &old);
    (void)th_ev_add_signal(ev, SIGUSR1, on_signal, ev);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_int_equal(th_ev_run(ev), 9);
    assert_string_equal(trace, "usr1 ");
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static struct th_ev_src *pair[2];
static void remove_both(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)fd;
    (void)events;
    note(arg);
    th_ev_remove(pair[0]);
    th_ev_remove(pair[1]);
    th_ev_remove(pair[0]); /* twice does nothing */
}

static void a_callback_may_remove_itself_and_others(void **state)
{
    struct th_ev *ev = *state;
    int p[2][2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pipe(p[i]), 0);
        assert_int_equal(th_io_write_all(p[i][1], "x", 1, NULL), 0);
        pair[i] = th_ev_add_fd(ev, p[i][0], EPOLLIN, remove_both, "cb");
    }
    th_ev_run_once(ev, 0);
    th_ev_run_once(ev, 0);
    assert_string_equal(trace, "cb ");
    for (int i = 0; i < 2; i++) {
        (void)close(p[i][0]);
        (void)close(p[i][1]);
    }
}

enum { POSTERS = 4, POSTS = 500 };
struct poster {
    struct th_ev *ev;
    int next; /* the loop's thread only */
};
struct posted {
    struct poster *from;
    int number;
};
static int received;

static void on_post(void *arg)
{
    struct posted *p = arg;
    assert_int_equal(p->number, p->from->next++);
    struct th_ev *ev = p->from->ev;
    free(p);
    if (++received == POSTERS * POSTS) {
        th_ev_stop(ev, 3);
    }
}

static void *poster_main(void *arg)
{
    for (int i = 0; i < POSTS; i++) {
        struct posted *p = malloc(sizeof(*p));
        *p = (struct posted){arg, i};
        th_ev_post(((struct poster *)arg)->ev, on_post, p);
    }
    return NULL;
}

static void posts_from_threads_run_in_order(void **state)
{
    struct th_ev *ev = *state;
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS];
    received = 0;
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){ev, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, poster_main, &posters[i]), 0);
    }
    assert_int_equal(th_ev_run(ev), 3);
    for (int i = 0; i < POSTERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(received, POSTERS * POSTS);
}

static void post_again(void *arg)
{
    note("again");
    (void)arg;
}

static void post_one_more(void *arg)
{
    note("job");
    th_ev_post(arg, post_again, NULL);
}

static void freeing_the_loop_runs_what_was_posted(void **state)
{
    struct th_ev *ev = *state;
    th_ev_post(ev, post_one_more, ev);
    (void)th_ev_add_timer(ev, 1000, 0, note_timer, "never");
    th_ev_free(ev);
    assert_string_equal(trace, "job again ");
    *state = NULL;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_readable_descriptor_calls_back),
        TEST(files_are_always_ready),
        TEST(timers_fire_in_the_order_of_their_moments),
        TEST(periodic_timers_repeat_without_a_burst),
        TEST(a_one_shot_timer_may_rearm_itself),
        TEST(real_timers_end_a_blocking_wait),
        TEST(moving_the_clock_wakes_the_loop),
        TEST(a_child_is_reaped_once),
        TEST(signals_arrive_in_the_loop),
        TEST(a_callback_may_remove_itself_and_others),
        TEST(posts_from_threads_run_in_order),
        TEST(freeing_the_loop_runs_what_was_posted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
