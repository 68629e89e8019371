/* usage: pulse MEGABYTES FILE [still]
 * Fills that much memory with what does not compress, says so in FILE, and then looks at the clock all the time. SIGUSR2
 * makes it write to FILE for how many microseconds it could not do so at most since SIGUSR1. With "still" it only waits:
 * a hundred that look at the clock leave no processor to whoever makes them. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void ask(int number)
{
    asked = number;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static void tell(int file, const char *text)
{
    if (pwrite(file, text, strlen(text), 0) < 0)
        exit(1);
}

int main(int count, char **words)
{
    int still = count == 4 && strcmp(words[3], "still") == 0;
    if (count != 3 && !still)
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
    signal(SIGUSR1, ask);
    signal(SIGUSR2, ask);
    int file = open(words[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    tell(file, "ready\n");
    while (still)
        pause();
    int64_t longest = 0, last = now();
    for (;;) {
        struct timespec step = {0, 100000};
        nanosleep(&step, NULL);
        int64_t time = now();
        if (time - last > longest)
            longest = time - last;
        last = time;
        int number = asked;
        if (number != 0)
            asked = 0;
        if (number == SIGUSR2) {
            char text[32];
            snprintf(text, sizeof text, "%12lld\n", (long long)longest);
            tell(file, text);
        } else if (number == SIGUSR1) {
            longest = 0;
        }
    }
}
