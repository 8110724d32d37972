/*
 * A minimal agent as /init: the least that a guest can do to run a program or take bytes over the same port.
 * 'x': forks, executes /bin/true of the image, waits, answers one byte. 'w' and eight bytes of length (big-endian):
 * writes so many bytes into a file on the work disk, flushes it, answers one byte.
 */
#include "modules.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char buffer[64 * 1024];

/* Finds NAME in DIR such that DIR/NAME/FILE holds VALUE; gives /dev/NAME. */
static int find(const char *dir, const char *file, const char *value, char *device, size_t size)
{
	DIR *entries = opendir(dir);
	struct dirent *entry;

	while (entries && (entry = readdir(entries))) {
		char path[512], text[64] = "";
		snprintf(path, sizeof path, "%s/%s/%s", dir, entry->d_name, file);
		FILE *found = fopen(path, "re");
		if (!found)
			continue;
		if (!fgets(text, sizeof text, found))
			text[0] = 0;
		fclose(found);
		text[strcspn(text, "\n")] = 0;
		if (strcmp(text, value) == 0) {
			snprintf(device, size, "/dev/%s", entry->d_name);
			closedir(entries);
			return 1;
		}
	}
	if (entries)
		closedir(entries);
	return 0;
}

static void mount_disk(const char *serial, const char *at, unsigned long flags, const char *options)
{
	char device[300];

	mkdir(at, 0755);
	for (int tries = 0; tries < 5000; tries++) {
		if (find("/sys/block", "serial", serial, device, sizeof device)) {
			if (mount(device, at, "ext4", flags, options) != 0)
				perror(device);
			return;
		}
		usleep(1000);
	}
	fprintf(stderr, "no disk %s\n", serial);
}

/* Reads at least one byte; a port without a client reads as ended. */
static ssize_t take(int port, size_t most)
{
	for (;;) {
		ssize_t count = read(port, buffer, most);
		if (count > 0)
			return count;
		if (count < 0 && errno != EINTR && errno != EAGAIN)
			return -1;
		usleep(500);
	}
}

static char run(void)
{
	pid_t child = fork();
	int status = 0;

	if (child == 0) {
		char *argv[] = { "true", NULL }, *envp[] = { NULL };
		if (chroot("/base") != 0 || chdir("/") != 0)
			_exit(125);
		execve("/bin/true", argv, envp);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? (char)WEXITSTATUS(status) : 126;
}

static char store(int port)
{
	uint64_t left = 0;
	unsigned char length[8];

	for (size_t have = 0; have < sizeof length;) {
		ssize_t count = take(port, sizeof length - have);
		if (count < 0)
			return 1;
		memcpy(length + have, buffer, (size_t)count);
		have += (size_t)count;
	}
	for (size_t i = 0; i < sizeof length; i++)
		left = left << 8 | length[i];
	int file = open("/disk/bench", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	while (left > 0) {
		ssize_t count = take(port, left < sizeof buffer ? (size_t)left : sizeof buffer);
		if (count < 0 || write(file, buffer, (size_t)count) != count)
			return 1;
		left -= (uint64_t)count;
	}
	int failed = fsync(file) != 0;
	close(file);
	unlink("/disk/bench");
	return (char)failed;
}

int main(void)
{
	char device[300];
	int port = -1;

	mkdir("/dev", 0755), mkdir("/proc", 0755), mkdir("/sys", 0755);
	mount("dev", "/dev", "devtmpfs", 0, "");
	mount("proc", "/proc", "proc", 0, "");
	mount("sys", "/sys", "sysfs", 0, "");
	load_modules();
	mount_disk("base", "/base", MS_RDONLY, "noload");
	mount_disk("work", "/disk", 0, "");
	while (!find("/sys/class/virtio-ports", "name", "banger.agent", device, sizeof device) ||
	       (port = open(device, O_RDWR | O_CLOEXEC)) < 0)
		usleep(1000);
	for (;;) {
		if (take(port, 1) != 1)
			return 1;
		char answer = buffer[0] == 'x' ? run() : buffer[0] == 'w' ? store(port) : 100;
		if (write(port, &answer, 1) != 1)
			return 1;
	}
}
