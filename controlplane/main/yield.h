#ifndef TH_CONTROLPLANE_YIELD_H
#define TH_CONTROLPLANE_YIELD_H
#include <stdbool.h>
/* From the calling thread on, threads that it makes give way to the others of this process and of its
 * control group. False, and nothing is changed, where that could not be taken back. */
bool th_yield_begin(void);
/* Takes it back from every thread. */
void th_yield_end(void);
#endif
