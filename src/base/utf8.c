/* utf8.c - see utf8.h. */
#include "base/utf8.h"

/* Range of the second byte after a lead byte (Unicode 15, table 3-7); length by lead. */
static size_t lead_info(unsigned char c, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) {
        return 1;
    }
    if (c >= 0xC2 && c <= 0xDF) {
        return 2;
    }
    if (c >= 0xE0 && c <= 0xEF) {
        if (c == 0xE0) {
            *lo = 0xA0;
        } else if (c == 0xED) {
            *hi = 0x9F;
        }
        return 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        if (c == 0xF0) {
            *lo = 0x90;
        } else if (c == 0xF4) {
            *hi = 0x8F;
        }
        return 4;
    }
    return 0;
}

/* How many of the first n bytes follow the table from a lead byte on; *need is the full length. */
static size_t matched(const char *text, size_t n, size_t *need)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char lo;
    unsigned char hi;
    *need = n > 0 ? lead_info(p[0], &lo, &hi) : 0;
    if (*need == 0) {
        return 0;
    }
    size_t i = 1;
    while (i < *need && i < n && p[i] >= lo && p[i] <= hi) {
        lo = 0x80;
        hi = 0xBF;
        i++;
    }
    return i;
}

size_t utf8_sequence(const char *text, size_t n)
{
    size_t need;
    size_t got = matched(text, n, &need);
    return need > 0 && got == need ? need : 0;
}

size_t utf8_invalid_run(const char *text, size_t n)
{
    size_t need;
    size_t got = matched(text, n, &need);
    return got > 0 ? got : 1;
}

bool utf8_is_prefix(const char *text, size_t n)
{
    size_t need;
    size_t got = matched(text, n, &need);
    return need > 1 && got == n && n < need;
}

bool utf8_is_valid(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t len = utf8_sequence(text + i, n - i);
        if (len == 0) {
            return false;
        }
        i += len;
    }
    return true;
}

size_t utf8_encode(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | (c >> 6));
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | (c >> 12));
        out[1] = (char)(0x80 | ((c >> 6) & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | (c >> 18));
    out[1] = (char)(0x80 | ((c >> 12) & 0x3F));
    out[2] = (char)(0x80 | ((c >> 6) & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

uint32_t utf8_decode(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    switch (len) {
    case 1:
        return p[0];
    case 2:
        return ((uint32_t)(p[0] & 0x1F) << 6) | (p[1] & 0x3F);
    case 3:
        return ((uint32_t)(p[0] & 0x0F) << 12) | ((uint32_t)(p[1] & 0x3F) << 6) | (p[2] & 0x3F);
    default:
        return ((uint32_t)(p[0] & 0x07) << 18) | ((uint32_t)(p[1] & 0x3F) << 12) |
               ((uint32_t)(p[2] & 0x3F) << 6) | (p[3] & 0x3F);
    }
}
