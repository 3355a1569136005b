/* See virt.h. The library stays loaded: it has threads of its own that cannot be ended. */
#include "vm/launcher/virt.h"
#include <dlfcn.h>

#define LIBRARY "libvirt.so.0"

int th_virt_load(const struct th_virt **ret, struct th_err *err)
{
    static struct th_virt virt;
    static const struct {
        const char *name;
        void *slot;
    } rows[] = {
#define F(fn) {#fn, &virt.fn},
        TH_VIRT_FUNCTIONS(F)
#undef F
    };
    void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        (void)th_fail(err, TH_R_NO_LIBVIRT, "libvirt is not installed: %s", dlerror());
        return th_hint(err, TH_VIRT_INSTALL);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        void *fn = dlsym(lib, rows[i].name);
        if (!fn) {
            (void)th_fail(err, TH_R_NO_LIBVIRT, LIBRARY " has no %s", rows[i].name);
            return th_hint(err, TH_VIRT_INSTALL);
        }
        memcpy(rows[i].slot, &fn, sizeof(fn)); /* POSIX: function and object pointers are alike */
    }
    *ret = &virt;
    return 0;
}
