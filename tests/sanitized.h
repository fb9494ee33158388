/* sanitized.h - SANITIZED is 1 under any sanitizer: code runs 5 to 20 times slower there, so the
 * same paths are tested fewer times. */
#ifndef LLMSCHED_TESTS_SANITIZED_H
#define LLMSCHED_TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
