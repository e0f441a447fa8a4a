-- Runs once, when the volume is new: a database a service, and a role that can reach only that one.
CREATE ROLE order_service LOGIN PASSWORD 'order_service';
CREATE DATABASE order_service OWNER order_service;
REVOKE CONNECT ON DATABASE order_service FROM PUBLIC;

CREATE ROLE payment_service LOGIN PASSWORD 'payment_service';
CREATE DATABASE payment_service OWNER payment_service;
REVOKE CONNECT ON DATABASE payment_service FROM PUBLIC;

CREATE ROLE inventory_service LOGIN PASSWORD 'inventory_service';
CREATE DATABASE inventory_service OWNER inventory_service;
REVOKE CONNECT ON DATABASE inventory_service FROM PUBLIC;

CREATE ROLE email_service LOGIN PASSWORD 'email_service';
CREATE DATABASE email_service OWNER email_service;
REVOKE CONNECT ON DATABASE email_service FROM PUBLIC;
