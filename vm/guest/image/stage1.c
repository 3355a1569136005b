/* First program of a boot with a modular kernel: from the initramfs to the root image.
 *
 * Debian's kernel has virtio_blk and erofs as modules, so something has to load them before /dev/vda
 * can be mounted. This does only that and hands over. It is linked statically and uses no shell.
 * The small kernel has everything built in and skips this stage.
 *
 * / of an initramfs is "rootfs", which pivot_root refuses to leave; every container runtime wants
 * pivot_root later. So the root image is moved over / (MS_MOVE) and entered with chroot: from then
 * on / is an ordinary mount. The few files of the initramfs are removed first, their memory would
 * stay in use otherwise. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define ROOT_DEVICE "/dev/vda"
#define DEVICE_WAIT_MS 10000

static _Noreturn void die(const char *what)
{
    /* PID 1 that ends is a kernel panic, and panic=-1 on the command line turns that into a
     * reset: QEMU runs with -no-reboot, so the launcher sees the machine end and shows this. */
    dprintf(2, "stage1: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static void load_module(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        die(path);
    }
    if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST) {
        die(path);
    }
    (void)close(fd);
    (void)unlink(path);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_modules(const char *dir)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, NULL, by_name); /* names begin with their number */
    if (n < 0) {
        die(dir);
    }
    for (int i = 0; i < n; i++) {
        if (names[i]->d_name[0] != '.') {
            char path[512];
            (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
            load_module(path);
        }
        free(names[i]);
    }
    free(names);
    (void)rmdir(dir);
}

int main(void)
{
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0 && errno != EBUSY) {
        die("mount /dev");
    }
    int console = open("/dev/console", O_RDWR | O_CLOEXEC);
    for (int fd = 0; console >= 0 && fd < 3; fd++) {
        (void)dup2(console, fd);
    }
    load_modules("/modules");
    struct stat st;
    for (int waited = 0; stat(ROOT_DEVICE, &st) < 0; waited += 5) {
        if (waited >= DEVICE_WAIT_MS) {
            die("waiting for " ROOT_DEVICE);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    if (mount(ROOT_DEVICE, "/root", "erofs", MS_RDONLY, NULL) < 0) {
        die("mount the root image");
    }
    if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) < 0) {
        die("move /dev");
    }
    (void)unlink("/init");
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0) {
        die("enter the root image");
    }
    char *argv[] = {"thimbled", "init", NULL};
    char *envp[] = {"PATH=/usr/sbin:/usr/bin", "HOME=/root", NULL};
    execve("/usr/sbin/thimbled", argv, envp);
    die("/usr/sbin/thimbled");
}
