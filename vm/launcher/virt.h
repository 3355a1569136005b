#ifndef TH_LAUNCHER_VIRT_H
#define TH_LAUNCHER_VIRT_H
/* libvirt, loaded when it is first needed: thimble starts on hosts that have none, for the host
 * driver, for `thimble help` and to say what to install. */
#include "base/err.h"
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#define TH_VIRT_FUNCTIONS(F)                                                                       \
    F(virInitialize)                                                                               \
    F(virSetErrorFunc)                                                                             \
    F(virGetLastErrorMessage)                                                                      \
    F(virEventRegisterDefaultImpl)                                                                 \
    F(virEventRunDefaultImpl)                                                                      \
    F(virConnectOpen)                                                                              \
    F(virConnectClose)                                                                             \
    F(virDomainCreateXML)                                                                          \
    F(virDomainLookupByName)                                                                       \
    F(virDomainDestroy)                                                                            \
    F(virDomainFree)

/* Each function of the library as a member of the same name. */
struct th_virt {
#define F(name) __typeof__(name) *name;
    TH_VIRT_FUNCTIONS(F)
#undef F
};
#define TH_VIRT_INSTALL                                                                            \
    "sudo apt-get install --no-install-recommends libvirt-daemon-driver-qemu libvirt-daemon-system"
/* The library for the rest of the process; TH_R_NO_LIBVIRT. From one thread. */
int th_virt_load(const struct th_virt **ret, struct th_err *err) TH_MUST_USE;
#endif
