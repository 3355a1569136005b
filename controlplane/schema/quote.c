/*
 * Go's strconv.Quote for error messages. Clients and tests compare messages byte for byte, and
 * upstream prints every offending string with %q. Valid UTF-8 above ASCII is left as it is; Go
 * also escapes the few code points that it takes for unprintable, which no message here needs.
 */
#include "controlplane/schema/quote.h"
#include "base/encode.h"

void th_go_quote(struct th_buf *b, const char *s)
{
    bool utf8 = th_utf8_valid(s, strlen(s));
    th_buf_putc(b, '"');
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        static const char names[] = "abtnvfr"; /* 7 to 13 */
        if (*p == '"' || *p == '\\') {
            th_buf_putc(b, '\\');
            th_buf_putc(b, (char)*p);
        } else if (*p >= 7 && *p <= 13) {
            th_buf_putc(b, '\\');
            th_buf_putc(b, names[*p - 7]);
        } else if (*p < ' ' || *p == 0x7f || (*p > 0x7f && !utf8)) {
            th_buf_printf(b, "\\x%02x", *p);
        } else {
            th_buf_putc(b, (char)*p);
        }
    }
    th_buf_putc(b, '"');
}
