#ifndef TH_LAUNCHER_DOMAIN_H
#define TH_LAUNCHER_DOMAIN_H
/* libvirt's domain XML for a machine: a pure function, tested against golden files. */
#include "vm/launcher/driver.h"
void th_domain_xml(const struct th_machine_spec *spec, const char *emulator, struct th_buf *ret);
#endif
