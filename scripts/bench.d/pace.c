/* usage: pace
 * Starts programs and says what they took; small, so that starting is cheap and alike for all. A request on
 * standard input is a line with a number N, then N lines of arguments parted by tabs: the N programs are started
 * at once. The answer is a line: nanoseconds until the last one ended, nanoseconds of processor time of them and
 * of the children they waited for, user-space instructions (-1 where the machine cannot count them), and how
 * many did not end with 0. Their standard input and output are /dev/null. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/perf_event.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024, MOST_ARGUMENTS = 64 };

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* Counts this process and, as they end, all that descend from it. */
static int open_counter(void) {
    struct perf_event_attr what = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof what,
        .config = PERF_COUNT_HW_INSTRUCTIONS,
        .inherit = 1,
        .exclude_kernel = 1,
        .exclude_hv = 1,
    };
    return (int)syscall(SYS_perf_event_open, &what, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static int64_t counted(int counter) {
    int64_t value;
    return counter >= 0 && read(counter, &value, sizeof value) == sizeof value ? value : -1;
}

static char **split(char *line) {
    char **arguments = calloc(MOST_ARGUMENTS, sizeof *arguments);
    size_t count = 0;
    line[strcspn(line, "\n")] = 0;
    while (line && count < MOST_ARGUMENTS - 1)
        arguments[count++] = strsep(&line, "\t");
    return arguments;
}

static int64_t processor_time(const struct rusage *usage) {
    int64_t microseconds = (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * INT64_C(1000000) +
                           usage->ru_utime.tv_usec + usage->ru_stime.tv_usec;
    return microseconds * 1000;
}

int main(void) {
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    int counter = open_counter();
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        static char *lines[MOST], **programs[MOST];
        static pid_t pids[MOST];
        int count = atoi(line), bad = 0;
        if (count < 1 || count > MOST)
            return 2;
        for (int i = 0; i < count; i++) {
            size_t room = 0;
            if (getline(&lines[i], &room, stdin) <= 0)
                return 2;
            programs[i] = split(lines[i]);
        }
        int64_t used = 0, instructions = counted(counter), start = now();
        for (int i = 0; i < count; i++)
            if (posix_spawn(&pids[i], programs[i][0], &files, NULL, programs[i], environ) != 0)
                pids[i] = -1;
        for (int i = 0; i < count; i++) {
            struct rusage usage;
            int status = 1;
            if (pids[i] > 0 && wait4(pids[i], &status, 0, &usage) == pids[i])
                used += processor_time(&usage);
            bad += status != 0;
        }
        int64_t elapsed = now() - start;
        if (instructions >= 0)
            instructions = counted(counter) - instructions;
        printf("%ld %ld %ld %d\n", (long)elapsed, (long)used, (long)instructions, bad);
        fflush(stdout);
        for (int i = 0; i < count; i++) {
            free(programs[i]);
            free(lines[i]);
            lines[i] = NULL;
        }
    }
    return 0;
}
