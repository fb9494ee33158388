/* request_cases.h - requests that packaged servers get wrong, and what we do with each
 * (docs/HTTP.md): held against the parser, and against the server on the wire. */
#ifndef LLMSCHED_TESTS_REQUEST_CASES_H
#define LLMSCHED_TESTS_REQUEST_CASES_H

#include "net/http.h"

#define G    "GET / HTTP/1.1\r\n"
#define P    "POST / HTTP/1.1\r\n"
#define P10  "POST / HTTP/1.0\r\n"
#define HOST "Host: a\r\n"
#define TE   "Transfer-Encoding: chunked\r\n"
#define END  "\r\n"

struct request_case {
    const char *name;
    const char *bytes;
    size_t n;
    enum http_bad bad; /* NONE: it is accepted, and all its bytes are used */
    int status;
    const char *body; /* of an accepted one */
};

#define ROW(name, text, bad, status, body)                                                         \
    {                                                                                              \
        name, text, sizeof(text) - 1, HTTP_BAD_##bad, status, body                                 \
    }

static const struct request_case cases[] = {
    /* length and coding */
    ROW("CL and TE", P HOST "Content-Length: 5\r\n" TE END "0\r\n\r\n", LENGTH_AND_CODING, 400, 0),
    ROW("TE and CL", P HOST TE "Content-Length: 5\r\n" END "0\r\n\r\n", LENGTH_AND_CODING, 400, 0),
    ROW("CL and unknown TE", P HOST "Content-Length: 5\r\nTransfer-Encoding: x\r\n" END "12345",
        LENGTH_AND_CODING, 400, 0),
    ROW("two CL", P HOST "Content-Length: 5\r\nContent-Length: 6\r\n" END "123456", LENGTH, 400, 0),
    ROW("same CL twice", P HOST "Content-Length: 5\r\nContent-Length: 5\r\n" END "12345", LENGTH,
        400, 0),
    ROW("CL list", P HOST "Content-Length: 5, 5\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL +5", P HOST "Content-Length: +5\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL 0x5", P HOST "Content-Length: 0x5\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL 5z", P HOST "Content-Length: 5z\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL -1", P HOST "Content-Length: -1\r\n" END, LENGTH, 400, 0),
    ROW("CL 5.0", P HOST "Content-Length: 5.0\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL 1 2", P HOST "Content-Length: 1 2\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL 1_0", P HOST "Content-Length: 1_0\r\n" END "1234567890", LENGTH, 400, 0),
    ROW("CL in other digits", P HOST "Content-Length: \xD9\xA5\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL quoted", P HOST "Content-Length: \"5\"\r\n" END "12345", LENGTH, 400, 0),
    ROW("CL with NUL", P HOST "Content-Length: 5\0\r\n" END "12345", CONTROL, 400, 0),
    ROW("CL empty", P HOST "Content-Length:\r\n" END, LENGTH, 400, 0),
    ROW("CL blank", P HOST "Content-Length:  \t \r\n" END, LENGTH, 400, 0),
    ROW("CL 2^64", P HOST "Content-Length: 18446744073709551616\r\n" END, LENGTH, 400, 0),
    ROW("CL 2^64+5", P HOST "Content-Length: 18446744073709551621\r\n" END, LENGTH, 400, 0),
    ROW("CL 30 digits", P HOST "Content-Length: 184467440737095516160000000000\r\n" END, LENGTH,
        400, 0),
    ROW("CL 2^64-1", P HOST "Content-Length: 18446744073709551615\r\n" END, BODY_LARGE, 413, 0),
    ROW("CL limit + 1", P HOST "Content-Length: 8388609\r\n" END, BODY_LARGE, 413, 0),
    ROW("CL 0", P HOST "Content-Length: 0\r\n" END, NONE, 0, ""),
    ROW("CL 5", P HOST "Content-Length: 5\r\n" END "12345", NONE, 0, "12345"),
    ROW("CL padded", P HOST "content-LENGTH: \t 005 \t\r\n" END "12345", NONE, 0, "12345"),
    ROW("CL on 1.0", P10 "Content-Length: 5\r\n" END "12345", NONE, 0, "12345"),
    ROW("no length, no body", P HOST END, NONE, 0, ""),
    ROW("TE unknown", P HOST "Transfer-Encoding: gzip\r\n" END "x", CODING_UNKNOWN, 501, 0),
    ROW("TE identity", P HOST "Transfer-Encoding: identity\r\n" END "x", CODING_UNKNOWN, 501, 0),
    ROW("TE xchunked", P HOST "Transfer-Encoding: xchunked\r\n" END "0\r\n\r\n", CODING_UNKNOWN,
        501, 0),
    ROW("TE gzip, chunked", P HOST "Transfer-Encoding: gzip, chunked\r\n" END "0\r\n\r\n",
        CODING_UNKNOWN, 501, 0),
    ROW("TE chunked, gzip", P HOST "Transfer-Encoding: chunked, gzip\r\n" END "0\r\n\r\n",
        CODING_UNKNOWN, 501, 0),
    ROW("TE with parameter", P HOST "Transfer-Encoding: chunked;q=1\r\n" END "0\r\n\r\n",
        CODING_UNKNOWN, 501, 0),
    ROW("TE quoted", P HOST "Transfer-Encoding: \"chunked\"\r\n" END "0\r\n\r\n", CODING_UNKNOWN,
        501, 0),
    ROW("TE twice in a list", P HOST "Transfer-Encoding: chunked, chunked\r\n" END "0\r\n\r\n",
        CODING, 400, 0),
    ROW("TE twice", P HOST TE TE END "0\r\n\r\n", CODING, 400, 0),
    ROW("TE empty", P HOST "Transfer-Encoding:\r\n" END, CODING, 400, 0),
    ROW("TE empty element", P HOST "Transfer-Encoding: chunked,\r\n" END "0\r\n\r\n", CODING, 400,
        0),
    ROW("TE on 1.0", P10 HOST TE END "0\r\n\r\n", CODING, 400, 0),
    ROW("TE VT", P HOST "Transfer-Encoding: \vchunked\r\n" END "0\r\n\r\n", CONTROL, 400, 0),
    ROW("TE space before colon", P HOST "Transfer-Encoding : chunked\r\n" END "0\r\n\r\n",
        HEADER_NAME, 400, 0),
    ROW("TE in capitals", P HOST "TRANSFER-ENCODING: Chunked \r\n" END "5\r\n12345\r\n0\r\n\r\n",
        NONE, 0, "12345"),

    /* chunks */
    ROW("chunked", P HOST TE END "5\r\n12345\r\n2\r\n67\r\n0\r\n\r\n", NONE, 0, "1234567"),
    ROW("chunked, empty", P HOST TE END "0\r\n\r\n", NONE, 0, ""),
    ROW("chunk zeros", P HOST TE END "0000000000000005\r\n12345\r\n00\r\n\r\n", NONE, 0, "12345"),
    ROW("chunk hex", P HOST TE END "a\r\n1234567890\r\nB\r\n12345678901\r\n0\r\n\r\n", NONE, 0,
        "123456789012345678901"),
    ROW("chunk extension", P HOST TE END "5;a=b;c=\"d e\"\r\n12345\r\n0;x\r\n\r\n", NONE, 0,
        "12345"),
    ROW("chunk extension, spaces", P HOST TE END "5 \t;a = b\r\n12345\r\n0\r\n\r\n", NONE, 0,
        "12345"),
    ROW("trailers", P HOST TE END "5\r\n12345\r\n0\r\nA: b\r\nContent-Length: 9\r\n\r\n", NONE, 0,
        "12345"),
    ROW("chunk size 0x5", P HOST TE END "0x5\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size 0X5", P HOST TE END "0X5\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size 1_0", P HOST TE END "1_0\r\n1234567890123456\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size with NUL", P HOST TE END "5\0\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size +5", P HOST TE END "+5\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size -5", P HOST TE END "-5\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size ' 5'", P HOST TE END " 5\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size '5 '", P HOST TE END "5 \r\n12345\r\n0\r\n\r\n", CHUNK_EXTENSION, 400, 0),
    ROW("chunk size 5g", P HOST TE END "5g\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size empty", P HOST TE END "\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size ;x", P HOST TE END ";x\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("chunk size overflow", P HOST TE END "10000000000000005\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE,
        400, 0),
    ROW("chunk size 17 digits", P HOST TE END "00000000000000005\r\n12345\r\n0\r\n\r\n", CHUNK_SIZE,
        400, 0),
    ROW("chunk size 2^64-1", P HOST TE END "ffffffffffffffff\r\n12345\r\n0\r\n\r\n", BODY_LARGE,
        413, 0),
    ROW("bare LF after size", P HOST TE END "5\n12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("bare CR after size", P HOST TE END "5\r12345\r\n0\r\n\r\n", CHUNK_SIZE, 400, 0),
    ROW("bare LF after data", P HOST TE END "5\r\n12345\n0\r\n\r\n", CHUNK_END, 400, 0),
    ROW("bare CR after data", P HOST TE END "5\r\n12345\r0\r\n\r\n", CHUNK_END, 400, 0),
    ROW("bare LF in extension", P HOST TE END "5;a\n12345\r\n0\r\n\r\n", CHUNK_EXTENSION, 400, 0),
    ROW("NUL in extension", P HOST TE END "5;a\0\r\n12345\r\n0\r\n\r\n", CHUNK_EXTENSION, 400, 0),
    ROW("bare LF at end", P HOST TE END "5\r\n12345\r\n0\r\n\n", TRAILER, 400, 0),
    ROW("chunk too long", P HOST TE END "4\r\n12345\r\n0\r\n\r\n", CHUNK_END, 400, 0),
    ROW("chunk too short", P HOST TE END "6\r\n12345\r\n0\r\n\r\n", CHUNK_END, 400, 0),
    ROW("trailer folded", P HOST TE END "0\r\nA: b\r\n c\r\n\r\n", TRAILER, 400, 0),
    ROW("trailer no colon", P HOST TE END "0\r\nAb\r\n\r\n", TRAILER, 400, 0),
    ROW("trailer empty name", P HOST TE END "0\r\n: b\r\n\r\n", TRAILER, 400, 0),
    ROW("trailer NUL", P HOST TE END "0\r\na: \0\r\n\r\n", TRAILER, 400, 0),
    ROW("trailer bare CR", P HOST TE END "0\r\na: b\rc\r\n\r\n", TRAILER, 400, 0),

    /* header lines */
    ROW("bare LF headers", "GET / HTTP/1.1\nHost: a\n\n", BARE_LF, 400, 0),
    ROW("one bare LF", G "Host: a\nX: y\r\n" END, BARE_LF, 400, 0),
    ROW("bare LF at end", G HOST "\n", BARE_LF, 400, 0),
    ROW("space before colon", G "Host : a\r\n" END, HEADER_NAME, 400, 0),
    ROW("tab before colon", G "Host\t: a\r\n" END, HEADER_NAME, 400, 0),
    ROW("space in name", G HOST "X y: a\r\n" END, HEADER_NAME, 400, 0),
    ROW("name of high bytes", G HOST "X\xC3\xA9: a\r\n" END, HEADER_NAME, 400, 0),
    ROW("obs-fold", G HOST "X: y\r\n z\r\n" END, FOLD, 400, 0),
    ROW("obs-fold with tab", G HOST "X: y\r\n\tz\r\n" END, FOLD, 400, 0),
    ROW("fold as first line", G " Host: a\r\n" END, FOLD, 400, 0),
    ROW("blank line of spaces", G HOST "  \r\n" END, FOLD, 400, 0),
    ROW("NUL in value", G HOST "X: y\0z\r\n" END, CONTROL, 400, 0),
    ROW("NUL in name", G HOST "X\0: y\r\n" END, CONTROL, 400, 0),
    ROW("DEL in value", G HOST "X: \x7F\r\n" END, CONTROL, 400, 0),
    ROW("ESC in value", G HOST "X: \x1B[2J\r\n" END, CONTROL, 400, 0),
    ROW("empty name", G HOST ": y\r\n" END, HEADER_NAME, 400, 0),
    ROW("bare CR in value", G HOST "X: y\rz\r\n" END, BARE_CR, 400, 0),
    ROW("CR CR LF", G HOST "X: y\r\r\n" END, BARE_CR, 400, 0),
    ROW("line without colon", G HOST "X\r\n" END, NO_COLON, 400, 0),
    ROW("high bytes in value", G HOST "X: \xC3\xA9\xFF\r\n" END, NONE, 0, ""),
    ROW("tab in value, empty value", G HOST "X: a\tb\r\nY:\r\nZ: :\r\n" END, NONE, 0, ""),

    /* Host */
    ROW("no Host", G END, NO_HOST, 400, 0),
    ROW("no Host on 1.0", "GET / HTTP/1.0\r\n" END, NONE, 0, ""),
    ROW("two Hosts", G "Host: a\r\nHost: b\r\n" END, HOST, 400, 0),
    ROW("same Host twice", G "Host: a\r\nHost: a\r\n" END, HOST, 400, 0),
    ROW("two Hosts on 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n" END, HOST, 400, 0),
    ROW("Host empty", G "Host:\r\n" END, HOST, 400, 0),
    ROW("Host list", G "Host: a, b\r\n" END, HOST, 400, 0),
    ROW("Host with space", G "Host: a b\r\n" END, HOST, 400, 0),
    ROW("Host with path", G "Host: a/b\r\n" END, HOST, 400, 0),
    ROW("Host with user", G "Host: u@a\r\n" END, HOST, 400, 0),
    ROW("Host with high bytes", G "Host: \xC3\xA9\r\n" END, HOST, 400, 0),
    ROW("Host IPv6", G "Host: [::1]:8000\r\n" END, NONE, 0, ""),

    /* request line */
    ROW("HTTP/1.257", "GET / HTTP/1.257\r\n" HOST END, VERSION, 505, 0),
    ROW("HTTP/2.0", "GET / HTTP/2.0\r\n" HOST END, VERSION, 505, 0),
    ROW("HTTP/1.2", "GET / HTTP/1.2\r\n" HOST END, VERSION, 505, 0),
    ROW("HTTP/0.9", "GET / HTTP/0.9\r\n" HOST END, VERSION, 505, 0),
    ROW("HTTP/11.1", "GET / HTTP/11.1\r\n" HOST END, VERSION, 505, 0),
    ROW("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION, 505, 0),
    ROW("no version", "GET /\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/1", "GET / HTTP/1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/1.", "GET / HTTP/1.\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/1.x", "GET / HTTP/1.x\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/x.1", "GET / HTTP/x.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/1-1", "GET / HTTP/1-1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/.1", "GET / HTTP/.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("HTTP/1.1x", "GET / HTTP/1.1x\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("http/1.1", "GET / http/1.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("space behind version", "GET / HTTP/1.1 \r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("two spaces", "GET  / HTTP/1.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("space in target", "GET /a b HTTP/1.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("space first", " GET / HTTP/1.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("tabs", "GET\t/\tHTTP/1.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("method with colon", "G:T / HTTP/1.1\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("one word", "GET\r\n" HOST END, REQUEST_LINE, 400, 0),
    ROW("CONNECT", "CONNECT a:80 HTTP/1.1\r\n" HOST END, METHOD, 501, 0),
    ROW("method of 21 bytes", "ABCDEFGHIJKLMNOPQRSTU / HTTP/1.1\r\n" HOST END, METHOD, 501, 0),
    ROW("method of 20 bytes", "ABCDEFGHIJKLMNOPQRST / HTTP/1.1\r\n" HOST END, NONE, 0, ""),
    ROW("TLS hello", "\x16\x03\x01\x02\x00\x01\x00", CONTROL, 400, 0),
    ROW("relative target", "GET a HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("star for GET", "GET * HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("star for OPTIONS", "OPTIONS * HTTP/1.1\r\n" HOST END, NONE, 0, ""),
    ROW("fragment", "GET /a#b HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("high bytes in target", "GET /\xC3\xA9 HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("other scheme", "GET ftp://a/ HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("absolute with one slash", "GET http:/a/b HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("absolute without slashes", "GET http:a/b/c HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("absolute without colon", "GET http//a/b HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("absolute without host", "GET http:///a HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("absolute, nothing", "GET http:// HTTP/1.1\r\n" HOST END, TARGET, 400, 0),
    ROW("one empty line before", "\r\n" G HOST END, NONE, 0, ""),
    ROW("two empty lines before", "\r\n\r\n" G HOST END, REQUEST_LINE, 400, 0),
    ROW("bare LF before", "\n" G HOST END, BARE_LF, 400, 0),

    /* Expect */
    ROW("Expect", P HOST "Expect: 100-Continue\r\nContent-Length: 2\r\n" END "ab", NONE, 0, "ab"),
    ROW("Expect unknown", P HOST "Expect: 200-ok\r\n" END, EXPECT, 417, 0),
    ROW("Expect empty", P HOST "Expect:\r\n" END, EXPECT, 417, 0),
};

#define N_CASES (sizeof cases / sizeof cases[0])

#endif
