#ifndef TH_SCHEMA_QUOTE_H
#define TH_SCHEMA_QUOTE_H
/* Go's %q, which upstream's messages put around values. */
#include "base/buf.h"
void th_go_quote(struct th_buf *b, const char *s);
#endif
