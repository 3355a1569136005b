#ifndef TH_BASE_BANNED_H
#define TH_BASE_BANNED_H
/* Included on the compiler's command line (-include) after the system headers that define them:
 * what must not be used, and what to use instead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#pragma GCC poison strcpy strcat sprintf vsprintf strtok gets atoi atol atoll /* th_buf, strtoll   \
                                                                               */
#pragma GCC poison gmtime localtime ctime asctime                             /* th_time_format */
#endif
