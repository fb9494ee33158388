/* Any bytes as a .env: an error with its line, or names and values that are read again as they are.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dotenv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good) {
        abort();
    }
}

/* In double quotes, which can hold everything. */
static size_t write_pair(char *out, const struct dotenv_pair *p)
{
    static const char export[] = "export ";
    size_t n = sizeof export - 1;
    size_t name_len = strlen(p->name);
    memcpy(out, export, n);
    memcpy(out + n, p->name, name_len);
    n += name_len;
    out[n++] = '=';
    out[n++] = '"';
    for (const char *c = p->value; *c != '\0'; c++) {
        static const char special[] = "\n\r\t\\\"$";
        static const char letters[] = "nrt\\\"$";
        const char *found = strchr(special, *c);
        if (found != NULL) {
            out[n++] = '\\';
        }
        out[n++] = found != NULL ? letters[found - special] : *c;
    }
    out[n++] = '"';
    out[n++] = '\n';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dotenv d;
    static struct dotenv again;
    struct error err = ERROR_INIT;
    enum status s = dotenv_parse((const char *)data, size, "fuzz", &d, &err);
    if (s != STATUS_OK) {
        must(err.code == s && strncmp(err.message, "fuzz", 4) == 0);
        must(size > DOTENV_MAX_BYTES || err.position >= 1);
        return 0;
    }
    static char text[3 * DOTENV_MAX_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < d.n; i++) {
        must(strspn(d.pairs[i].name, "_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
                                     "YZ") == strlen(d.pairs[i].name));
        n += write_pair(text + n, &d.pairs[i]);
    }
    if (n <= DOTENV_MAX_BYTES) {
        must(dotenv_parse(text, n, "again", &again, &err) == STATUS_OK && again.n == d.n);
        for (size_t i = 0; i < d.n; i++) {
            must(strcmp(d.pairs[i].name, again.pairs[i].name) == 0);
            must(strcmp(d.pairs[i].value, again.pairs[i].value) == 0);
        }
        dotenv_deinit(&again);
    }
    dotenv_deinit(&d);
    return 0;
}
