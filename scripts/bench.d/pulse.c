/* usage: pulse MEGABYTES FILE
 * Fills that much memory with what does not compress, and then looks at the clock all the time. Whenever it has not
 * been able to for longer than before, FILE says how long, in microseconds; SIGUSR1 makes it begin anew. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>

static volatile sig_atomic_t anew;

static void begin_anew(int number)
{
    (void)number;
    anew = 1;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    size_t size = strtoul(words[1], NULL, 10) << 20;
    uint64_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    uint64_t value = 88172645463325252ULL;
    for (size_t place = 0; place < size / sizeof *memory; place++) {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        memory[place] = value;
    }
    signal(SIGUSR1, begin_anew);
    int file = open(words[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int64_t longest = -1, last = now();
    for (;;) {
        struct timespec step = {0, 100000};
        nanosleep(&step, NULL);
        int64_t time = now();
        if (anew) {
            anew = 0;
            longest = -1;
        } else if (time - last > longest) {
            char text[32];
            longest = time - last;
            int length = snprintf(text, sizeof text, "%12lld\n", (long long)longest);
            if (pwrite(file, text, length, 0) != length)
                return 1;
        }
        last = time;
    }
}
