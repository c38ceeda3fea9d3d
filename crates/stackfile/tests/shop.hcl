variable "greeting" { default = "hello" }

image "web" {                                     # baked
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }     # from the stack's folder unless absolute
  file "/www/index.html" { content = "${var.greeting}\n" }
  command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
}

service "web" {
  image     = image.web
  instances = 4
  env       = { LOG = "info" }
  scratch   = ["/tmp"]
  drain     = "30s"

  config "/etc/app.toml" { content = templatefile("app.toml.tpl", { port = 8080 }) }
  secret "/run/secrets/db" { from = secret.db_password }
  volume "/var/lib/data" {
    name   = "data"
    shared = true
  }
  port "http" { container = 8080 }

  limits {
    cpu    = "500m"
    memory = "128MiB"
    pids   = 256
  }

  health {
    http {
      path = "/"
      port = "http"
    }
    interval        = "1s"
    timeout         = "500ms"
    healthy_after   = 2
    unhealthy_after = 3
    start_within    = "30s"
  }

  route {
    host = "shop.example.com"
    path = "/"
    port = "http"
  }

  rollout "canary" {
    instances = "25%"
    steps = [
      { weight = 5, hold = "2m" },
      { weight = 25, hold = "5m" },
      { weight = 50, hold = "5m", approval = true },
    ]
    deadline = "30m"
    keep_old = "10m"
  }
}
